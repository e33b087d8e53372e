"""The golden fixture itself: a file that is not there, or that differs, fails."""

from __future__ import annotations

import pytest

from tests.conftest import Golden


@pytest.fixture
def comparing_golden(golden: Golden, request: pytest.FixtureRequest) -> Golden:
    if request.config.getoption("--update-golden"):
        pytest.skip("golden files are being rewritten")
    return golden


def test_missing_golden_file_fails(comparing_golden: Golden) -> None:
    with pytest.raises(pytest.fail.Exception, match="no such golden file; make it with `pytest --update-golden`"):
        comparing_golden("report/no-such-file.md", "text\n")


def test_difference_fails_with_a_diff(comparing_golden: Golden) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"(?s)quickstart.md differs.*\n-# hpcbench report.*\n\+text"):
        comparing_golden("report/quickstart.md", "text\n")
