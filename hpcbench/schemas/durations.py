"""Time limits as people and Slurm write them.

In: text. Out: whole minutes, rounded up. It knows nothing of YAML, which reads 1:30:00 as 5400.
"""

from __future__ import annotations

import re

FORMS = "minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]], or 8h, 90m, 1d, 1h30m"
LONGEST_MIN = 366 * 24 * 60
LONGEST_TEXT = 20

_UNITS = re.compile(r"(?:(?P<d>\d+)d)?(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+)s)?", re.ASCII)
_SLURM = re.compile(r"(?:(?P<days>\d+)-)?(?P<fields>\d+(?::\d+){0,2})", re.ASCII)


def parse_minutes(text: str) -> int | None:
    """Return the duration in minutes, rounded up, or None when `text` is none of `FORMS`.

    Source of the forms: https://slurm.schedmd.com/sbatch.html, option --time.

    >>> [parse_minutes(text) for text in ("90", "1:30", "1:30:00", "1-0", "1-2:30", "8h", "1h30m")]
    [90, 2, 90, 1440, 1590, 480, 90]
    """
    text = text.strip()
    if not text or len(text) > LONGEST_TEXT:
        return None
    if (units := _UNITS.fullmatch(text.lower().replace(" ", ""))) is not None:
        days, hours, minutes, seconds = (int(units[unit] or 0) for unit in "dhms")
    elif (slurm := _SLURM.fullmatch(text)) is not None:
        days = int(slurm["days"] or 0)
        fields = [int(part) for part in slurm["fields"].split(":")]
        if slurm["days"] is not None:
            hours, minutes, seconds = [*fields, 0, 0][:3]
        else:
            hours, minutes, seconds = {1: [0, *fields, 0], 2: [0, *fields], 3: fields}[len(fields)]
    else:
        return None
    return -(-(((days * 24 + hours) * 60 + minutes) * 60 + seconds) // 60)
