"""Which experiment is compared with which, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.compare.pairs import Matched, match_experiments
from hpcbench.compare.runs import Side
from hpcbench.errors import PlanError
from tests.support.compare_cases import experiment, side


def named(folder: Path, *names: str, source: str) -> Side:
    """Return a side of experiments, each `suite/name` or `name`."""
    parts = [name.rpartition("/") for name in names]
    return side(
        *(experiment(folder / source, name, [1.0], suite=suite or "suite") for suite, _, name in parts), source=source
    )


def names(matched: Matched) -> list[tuple[str, str]]:
    return [(old.full_name.removeprefix("suite/"), new.full_name.removeprefix("suite/")) for old, new in matched.pairs]


def test_experiments_of_one_name_are_pairs_and_the_others_are_named(tmp_path: Path) -> None:
    a, b = named(tmp_path, "lora", "full", source="A"), named(tmp_path, "dora", "lora", source="B")

    matched = match_experiments(a, b)
    assert names(matched) == [("lora", "lora")]
    assert (matched.only_before, matched.only_after) == (("full",), ("dora",))


def test_one_experiment_of_either_side_is_a_pair(tmp_path: Path) -> None:
    a, b = named(tmp_path, "baseline", source="A"), named(tmp_path, "lora", source="B")

    assert names(match_experiments(a, b)) == [("baseline", "lora")]


def test_suites_of_other_names_are_compared_by_experiment(tmp_path: Path) -> None:
    a, b = named(tmp_path, "old/lora", "old/full", source="A"), named(tmp_path, "new/lora", "new/full", source="B")

    assert names(match_experiments(a, b)) == [("old/lora", "new/lora"), ("old/full", "new/full")]


def test_of_several_suites_experiments_go_by_suite_and_name(tmp_path: Path) -> None:
    a = named(tmp_path, "one/lora", "two/lora", source="A")
    b = named(tmp_path, "two/lora", "three/lora", source="B")

    matched = match_experiments(a, b)
    assert names(matched) == [("two/lora", "two/lora")]
    assert (matched.only_before, matched.only_after) == (("one/lora",), ("three/lora",))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("lora:dora", [("lora", "dora")]),
        ("*:*-v2", [("lora", "lora-v2"), ("full", "full-v2")]),
        ("lora:*", [("lora", "dora"), ("lora", "lora-v2"), ("lora", "full-v2")]),
        ("*:dora", [("lora", "dora"), ("full", "dora")]),
    ],
)
def test_rules_name_the_pairs(tmp_path: Path, rule: str, expected: list[tuple[str, str]]) -> None:
    a, b = named(tmp_path, "lora", "full", source="A"), named(tmp_path, "dora", "lora-v2", "full-v2", source="B")

    assert names(match_experiments(a, b, rules=[rule])) == expected


def test_within_one_suite_nothing_is_compared_with_itself(tmp_path: Path) -> None:
    a = named(tmp_path, "baseline", "lora", "full", source="A")

    assert names(match_experiments(a, a, rules=["baseline:*"])) == [("baseline", "lora"), ("baseline", "full")]


@pytest.mark.parametrize("rule", ["a:*", "*:a"])
def test_within_one_suite_nothing_is_on_one_side_alone(tmp_path: Path, rule: str) -> None:
    one = named(tmp_path, "a", "b", "c", source="A")

    matched = match_experiments(one, one, rules=[rule])
    assert (matched.only_before, matched.only_after) == ((), ())


def test_rules_leave_out_only_what_they_mean(tmp_path: Path) -> None:
    old = named(tmp_path / "a", "lora-1", "lora-2", "full", source="A")
    new = named(tmp_path / "b", "lora-1-v2", "dora", source="B")

    matched = match_experiments(old, new, rules=["lora-*:lora-*-v2"])
    assert (matched.only_before, matched.only_after) == (("lora-2",), ())


def test_only_keeps_the_pairs_that_match(tmp_path: Path) -> None:
    a, b = (named(tmp_path, "lora-r4", "lora-r8", "full", source=source) for source in "AB")

    matched = match_experiments(a, b, only=["lora-*"])
    assert names(matched) == [("lora-r4", "lora-r4"), ("lora-r8", "lora-r8")]
    assert matched.only_before == ()


def test_a_hostile_name_of_a_saved_report_is_a_name(tmp_path: Path) -> None:
    a, b = named(tmp_path, "[a]:*", source="A"), named(tmp_path, "b", source="B")

    assert names(match_experiments(a, b)) == [("[a]:*", "b")]


class TestRefusals:
    def test_no_common_name(self, tmp_path: Path) -> None:
        a, b = named(tmp_path, "lora", "full", source="A"), named(tmp_path, "dora", "ia3", source="B")

        with pytest.raises(PlanError) as caught:
            match_experiments(a, b)
        assert str(caught.value) == (
            "A and B: no experiment has the same name on both sides\n"
            "  expected: one of dora, ia3; found: lora, full\n"
            "  hint: `--match OLD:NEW` names the pairs"
        )

    def test_one_side_twice(self, tmp_path: Path) -> None:
        a = named(tmp_path, "lora", "full", source="A")

        with pytest.raises(PlanError) as caught:
            match_experiments(a, a)
        assert str(caught.value) == (
            "A and A: the same experiments\n  hint: `--match OLD:NEW` compares experiments of one suite with each other"
        )

    @pytest.mark.parametrize("rule", ["lora", "lora:", ":lora", "a:b:c"])
    def test_a_rule_that_is_no_pair(self, tmp_path: Path, rule: str) -> None:
        a, b = (named(tmp_path, "lora", "full", source=source) for source in "AB")

        with pytest.raises(PlanError) as caught:
            match_experiments(a, b, rules=[rule])
        assert str(caught.value) == (
            f"--match {rule}: not a pair\n  expected: OLD:NEW, each a name or a glob, as 'lora:lora-v2'"
        )

    def test_a_rule_for_an_experiment_that_is_not_there(self, tmp_path: Path) -> None:
        a, b = (named(tmp_path, "lora", "full", source=source) for source in "AB")

        with pytest.raises(PlanError) as caught:
            match_experiments(a, b, rules=["lore:full"])
        assert str(caught.value) == "--match lore:full: no such experiment: lore\n  hint: did you mean 'lora'?"

    def test_a_glob_that_matches_no_pair(self, tmp_path: Path) -> None:
        a, b = (named(tmp_path, "lora", "full", source=source) for source in "AB")

        with pytest.raises(PlanError) as caught:
            match_experiments(a, b, only=["xyz*"])
        assert str(caught.value) == "--only: no such experiment: xyz*\n  hint: there are: full, lora"
