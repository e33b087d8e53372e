"""The shipped suites of frameworks side by side."""

from __future__ import annotations

from hpcbench.config.loading import load_suites
from hpcbench.schemas.request import FRAMEWORKS
from tests.unit.frameworks import FRAMEWORK_SUITES


def test_plan_takes_the_suites_that_compare_frameworks() -> None:
    suites = load_suites([FRAMEWORK_SUITES])
    trained_by = {experiment.framework for suite in suites for experiment in suite.experiments}
    assert trained_by == {None, *FRAMEWORKS} - {"axolotl"}
