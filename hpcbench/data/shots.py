"""How many solved examples a split can give, by the same rule on the login node and in the job."""

from __future__ import annotations

from hpcbench.errors import WorkerError, plural


def shots_error(num_shots: int, num_rows: int, *, place: str, without_one: bool) -> WorkerError | None:
    """Return why so many examples cannot be drawn, or None.

    Args:
        num_shots: solved examples before each question.
        num_rows: rows that they are drawn from.
        place: where those are, for the message.
        without_one: whether the question itself is left out, as lm-eval does in the split that is evaluated.
    """
    most = max(num_rows - 1, 0) if without_one else num_rows
    if num_shots <= most:
        return None
    itself = ", one of which is the question itself" if without_one and num_rows else ""
    need = f"{num_shots}-shot prompts need {plural(num_shots, 'row')} to take examples from"
    return WorkerError(
        f"{need}, and {place} has {num_rows}{itself}",
        hint=f"set num_fewshot to at most {most}" if most else "set num_fewshot: 0, or name a fewshot_split with rows",
    )
