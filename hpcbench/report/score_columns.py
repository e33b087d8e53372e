"""The columns that no one can know before: one per eval dataset and metric, one per figure a program reported."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from hpcbench.report.cells import number_text
from hpcbench.report.column import Better, Column, Raw
from hpcbench.report.facts import Facts, Score, unfinished_eval, unscored_eval
from hpcbench.schemas.arguments import EVAL_LOSS_ONLY


def eval_columns(experiments: Iterable[Facts]) -> tuple[Column, ...]:
    """Return a column per eval dataset and metric, in order of appearance; datasets not evaluated yet have one too."""
    return tuple(column for columns in columns_by_dataset(experiments).values() for column in columns)


def columns_by_dataset(experiments: Iterable[Facts]) -> dict[str, tuple[Column, ...]]:
    """Return the columns of each eval dataset: the name of one may begin with that of another."""
    metrics: dict[str, dict[str, Better]] = {}
    shots: defaultdict[str, set[int | None]] = defaultdict(set)
    for facts in experiments:
        for dataset, found in facts.evals.items():
            if dataset == EVAL_LOSS_ONLY:
                continue  # it has a column of its own
            known = metrics.setdefault(dataset, {})
            if found.score is not None:
                known.setdefault(found.score.metric, "higher" if found.score.higher_is_better else "lower")
                shots[dataset].add(found.score.num_fewshot)
    columns: dict[str, tuple[Column, ...]] = {}
    for dataset, known in metrics.items():
        tells_shots = len(shots[dataset]) > 1
        columns[dataset] = tuple(
            eval_column(dataset, metric, better=better, tells_shots=tells_shots) for metric, better in known.items()
        ) or (eval_column(dataset, None),)
    return columns


def value_columns(experiments: Iterable[Facts]) -> tuple[Column, ...]:
    """Return a column per figure that `cmd: command` programs reported."""
    names = (name for facts in experiments if facts.command is not None for name in facts.command.values)
    return tuple(value_column(name) for name in dict.fromkeys(names))


def eval_column(dataset: str, metric: str | None, *, better: Better = "higher", tells_shots: bool = False) -> Column:
    """Return the column of one eval dataset and metric.

    Args:
        dataset: its name in the suite.
        metric: as a Score names it; None while no eval of the dataset has a score.
        better: which figures are better.
        tells_shots: whether cells name the number of shots, as where rows differ in it.
    """

    def score(facts: Facts) -> Score | None:
        found = None if dataset not in facts.evals else facts.evals[dataset].score
        return found if found is not None and found.metric == metric else None

    def show(facts: Facts) -> str:
        found = score(facts)
        assert found is not None  # noqa: S101 -- cell_text asks for values that are there
        stderr = "" if found.stderr is None else f" ± {number_text(found.stderr, 3)}"
        return f"{number_text(found.value, 3)}{stderr}{marks(facts)}"

    def marks(facts: Facts) -> str:
        found = score(facts)
        if found is None:
            return ""
        shots = f" ({found.num_fewshot}-shot)" if tells_shots and found.num_fewshot is not None else ""
        limit = f" (limit={found.num_samples})" if found.debug else ""
        return f"{shots}{limit}{f' ({found.num_prompts_cut} cut)' if found.num_prompts_cut else ''}"

    return Column(
        key=f"{dataset}_{metric}" if metric else dataset,
        header=f"{dataset} {metric}" if metric else dataset,
        short="\n".join((dataset, *metric.split(",")[:1])) if metric else dataset,
        get=lambda facts: found.value if (found := score(facts)) is not None else None,
        show=show,
        brief=lambda facts: f"{number_text(found.value, 3)}{marks(facts)}" if (found := score(facts)) else "",
        decimals=3,
        unit=marks,
        better=better,
        error=lambda facts: None if (found := score(facts)) is None else found.stderr,
        state=lambda facts: unfinished_eval(facts, dataset) or unscored_eval(facts, dataset),
        peers=lambda facts: (found.num_samples, found.num_fewshot) if (found := score(facts)) is not None else None,
        measured=True,
    )


def value_column(name: str) -> Column:
    """Return the column of one figure that `cmd: command` programs reported; hpcbench does not know what is better."""

    def get(facts: Facts) -> Raw:
        return None if facts.command is None else facts.command.values.get(name)

    def show(facts: Facts) -> str:
        value = get(facts)
        return f"{value:.6g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)

    return Column(key=name, header=name, get=get, show=show, decimals=4, measured=True)
