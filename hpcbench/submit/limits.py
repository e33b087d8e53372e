"""A scheduler's refusal: a limit on how many jobs one may have, which passes, or something that stays wrong.

In: what sbatch said. Out: a judgement. Pure.

Slurm names the limit on a line of its own (`QOSMaxSubmitJobPerUserLimit`) and then always says the same: `Job violates
accounting/QOS policy (job submit limit, user's size and/or time limits)`. Releases before 20.11 say only the latter.
"""

from __future__ import annotations

import re

LIMIT_ERROR = re.compile(r"limit|MaxSubmit|MaxArray|invalid job array|QOSMax|AssocMax|too many", re.IGNORECASE)
_NAMED_LIMIT = re.compile(r"\b(?:QOS|Assoc)(?:Max|Min|Grp)\w*")
_PERHAPS_JOBS = re.compile(
    r"submit limit|MaxSubmit|too many (?:\w+ )?jobs|limit (?:of|on|for) [^;.]*\bjobs?\b", re.IGNORECASE
)


def may_fit_smaller(message: str) -> bool:
    """Say whether a part of what was refused may be taken."""
    return LIMIT_ERROR.search(message) is not None


def job_limit(message: str, *, some_were_taken: bool) -> str | None:
    """Return the limit on the number of jobs that a refusal of a single job names, or None when it is another refusal.

    Args:
        message: sbatch's words.
        some_were_taken: whether others of the same submit were taken; only then do words that may mean any limit
            mean this one.
    """
    named = list(dict.fromkeys(_NAMED_LIMIT.findall(message)))
    if named:
        submit = [name for name in named if "submit" in name.lower()]
        return ", ".join(submit) or None
    return message if some_were_taken and _PERHAPS_JOBS.search(message) else None
