"""What a comparison found, as `hpcbench compare --format json` prints it, schema version 1.

In: nothing; values only. Differences are after minus before, in the units that the metric's name has. Unknown is null
with a reason beside it, never 0.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from hpcbench.compare.statistics import Method
from hpcbench.schemas.metrics import Count, Finite

CLOSED = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

Verdict = Literal["better", "worse", "different", "not_significant", "not_tested", "missing"]
"""`different`: significant, and which way is better is unknown."""


class Value(BaseModel):
    """One metric on one side."""

    model_config = CLOSED

    value: Finite | None
    """Mean over the runs that have it; null where none has."""
    std: Finite | None = None
    """Sample standard deviation over these runs; null for a single one."""
    stderr: Finite | None = None
    """lm-eval's standard error of a single run's score."""
    num_runs: Count = 0
    """Runs that have the metric."""
    num_expected: Count = 1
    """Runs of the experiment."""
    num_documents: Count | None = None
    missing: str | None = None
    """Why a run has none: a state, or what else is known."""

    @property
    def is_complete(self) -> bool:
        """Whether all runs of the experiment have it."""
        return self.num_runs == self.num_expected


class Test(BaseModel):
    """How a difference was tested."""

    model_config = CLOSED
    __test__ = False  # pytest takes classes of this name for tests

    method: Method
    why: str
    """Why this test."""
    p_value: Finite
    """Two-sided, of this comparison by itself."""
    p_adjusted: Finite
    """For all tests of the document together, by Holm's procedure."""
    interval: tuple[Finite, Finite]
    """95 % interval of the difference, of this comparison by itself."""
    num_documents: Count | None = None
    """Documents that were paired."""
    num_gained: Count | None = None
    """Of them those that only the second side solved."""
    num_lost: Count | None = None
    """Of them those that only the first side solved."""


class Comparison(BaseModel):
    """One metric of one experiment, before and after."""

    model_config = CLOSED

    metric: str
    """Name in CSV and JSON of `collect`."""
    label: str
    """Name in tables."""
    kind: Literal["score", "figure"]
    dataset: str | None = None
    """Of a score: the eval dataset, or its task."""
    better: Literal["higher", "lower"] | None
    before: Value
    after: Value
    difference: Finite | None = None
    change_pct: Finite | None = None
    """Difference in percent of the value before; null where that is 0."""
    test: Test | None = None
    not_tested: str | None = None
    """Why there is no test."""
    verdict: Verdict
    remarks: tuple[str, ...] = ()
    """What else differs that this metric depends on."""


class Change(BaseModel):
    """A setting, or a part of the environment, that differs."""

    model_config = CLOSED

    name: str
    before: str
    after: str


class Pair(BaseModel):
    """One experiment of either side."""

    model_config = CLOSED

    name: str
    """One name where both sides have the same, else `before → after`."""
    before: str
    """`suite/experiment`."""
    after: str
    settings: tuple[Change, ...] = ()
    """Arguments that differ."""
    environment: tuple[Change, ...] = ()
    comparisons: tuple[Comparison, ...] = ()


class SideInfo(BaseModel):
    """Where one side came from."""

    model_config = CLOSED

    source: str
    """As it was typed."""
    finished_at: str | None = None
    """When the last of its jobs finished; null where the report does not tell."""
    collected_at: str | None = None
    """When the report was collected; null where records were read."""
    only_here: tuple[str, ...] = ()
    """Experiments that were compared with none of the other side."""


class FoundCondition(BaseModel):
    """What became of one `--fail-if`."""

    model_config = CLOSED

    condition: str
    outcome: Literal["passed", "failed", "not_judged"]
    """`not_judged`: a figure that it needs is missing, which counts as failed."""
    cases: tuple[str, ...] = ()
    """What failed, or could not be judged."""


class ComparisonReport(BaseModel):
    """Everything that one comparison found."""

    model_config = CLOSED

    schema_version: Literal[1] = 1
    kind: Literal["hpcbench-comparison"] = "hpcbench-comparison"
    alpha: Finite = Field(gt=0, lt=1)
    """Adjusted p-values below it are significant."""
    num_tests: Count
    """Tests that Holm's procedure corrects for."""
    before: SideInfo
    after: SideInfo
    warnings: tuple[str, ...] = ()
    pairs: tuple[Pair, ...]
    conditions: tuple[FoundCondition, ...] = ()
