"""The `report:` block of a suite: how its results are to be shown.

In: the block as it was written. Out: the options of `collect`, which those that are typed there win over. Which columns
there are is known once there are results, so `collect` warns of keys that are none.
"""

from __future__ import annotations

from hpcbench.config.layers import keep_known
from hpcbench.config.typed_fields import build
from hpcbench.errors import Problem
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.storage.located_yaml import Located, show


def read_report(block: Located | None, problems: list[Problem]) -> ReportOptions:
    """Return the options; what is wrong with them goes to `problems`."""
    if block is None or (block.value is None and not block.is_forgotten):
        return ReportOptions()
    if block.mapping is None:
        hint = "report: {columns: [gsm8k, eval_loss]}"
        problems.append(block.problem(f"got {show(block)}", expected="a mapping (key: value)", hint=hint))
        return ReportOptions()
    before = len(problems)
    given = keep_known(block.mapping, tuple(ReportOptions.model_fields), problems)
    options = build(ReportOptions, given, at=block, problems=problems)
    if options is None or len(problems) > before:
        return ReportOptions()
    # What was written as null or left out was not set, so that `over` leaves it to the report.
    named = {name: getattr(options, name) for name, entry in given.items() if entry.value is not None}
    return ReportOptions(**named)
