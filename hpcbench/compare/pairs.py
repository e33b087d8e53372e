"""Which experiment is compared with which.

In: two sides, the rules of `--match` and the globs of `--only`. Out: pairs, and what has no partner. A rule or a glob
that means no experiment is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from hpcbench.compare.runs import Experiment, Side
from hpcbench.errors import PlanError, did_you_mean, name_first

BY_NAME = "*:*"
"""The rule that pairs experiments of the same name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """Pairs in the order of the first side, and the experiments of either side without a partner."""

    pairs: tuple[tuple[Experiment, Experiment], ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]


def match_experiments(before: Side, after: Side, *, rules: Sequence[str] = (), only: Sequence[str] = ()) -> Matched:
    """Return which experiments to compare.

    Without rules those of the same name are paired; two sides of one experiment each are a pair whatever their names.
    `OLD:NEW` pairs by name: with a `*` in both, the same text takes its place in both; else each experiment that
    matches OLD is paired with each that matches NEW.

    Raises:
        PlanError: a rule is malformed or means no experiment, or nothing is left to compare.
    """
    olds, news = _by_name(before, after)
    if not rules and before.experiments == after.experiments:
        raise PlanError(
            f"{before.source} and {after.source}: the same experiments",
            hint="`--match OLD:NEW` compares experiments of one suite with each other",
        )
    if not rules and len(olds) == len(news) == 1:
        names = {(next(iter(olds)), next(iter(news))): None}
    else:
        names = dict.fromkeys(pair for rule in rules or (BY_NAME,) for pair in _pairs_of(rule, olds, news))
    if not rules and not names:
        raise PlanError(
            f"{before.source} and {after.source}: no experiment has the same name on both sides\n"
            f"  expected: one of {name_first(list(news))}; found: {name_first(list(olds))}",
            hint="`--match OLD:NEW` names the pairs",
        )
    kept = [pair for pair in names if not only or any(_matches(pair, glob) for glob in only)]
    unknown = [glob for glob in only if not any(_matches(pair, glob) for pair in names)]
    if unknown:
        raise _unknown("--only", unknown[0], [name for pair in names for name in pair])
    order = {name: place for place, name in enumerate(olds)}
    return Matched(
        pairs=tuple((olds[old], news[new]) for old, new in sorted(kept, key=lambda pair: order[pair[0]])),
        only_before=_alone(olds, news, {old for old, _ in names}, [rule.partition(":")[0] for rule in rules], only),
        only_after=_alone(news, olds, {new for _, new in names}, [rule.partition(":")[2] for rule in rules], only),
    )


def _by_name(before: Side, after: Side) -> tuple[dict[str, Experiment], dict[str, Experiment]]:
    """Return both sides' experiments by name, with the suite's where a side has several suites."""
    is_short = len(before.suites) <= 1 and len(after.suites) <= 1
    named = [
        {experiment.name if is_short else experiment.full_name: experiment for experiment in side.experiments}
        for side in (before, after)
    ]
    return named[0], named[1]


def _pairs_of(rule: str, olds: dict[str, Experiment], news: dict[str, Experiment]) -> Iterator[tuple[str, str]]:
    old_glob, colon, new_glob = rule.partition(":")
    if not colon or not old_glob or not new_glob or ":" in new_glob:
        raise PlanError(f"--match {rule}: not a pair\n  expected: OLD:NEW, each a name or a glob, as 'lora:lora-v2'")
    if old_glob.count("*") == new_glob.count("*") == 1:
        found = [(old, new) for old in olds if (new := _translate(old, old_glob, new_glob)) in news]
    else:
        found = [(old, new) for old in olds for new in news if _fits(old, old_glob) and _fits(new, new_glob)]
    if not found and rule != BY_NAME:
        for glob, names in ((old_glob, olds), (new_glob, news)):
            if not any(_fits(name, glob) for name in names):
                raise _unknown(f"--match {rule}", glob, list(names))
        raise PlanError(f"--match {rule}: pairs no experiments", hint="one `*` on either side is the same text in both")
    yield from ((old, new) for old, new in found if rule == BY_NAME or olds[old] != news[new])


def _translate(name: str, old_glob: str, new_glob: str) -> str | None:
    """Return the partner's name where both globs have one `*`, or None for a name that is not meant."""
    start, _, end = old_glob.partition("*")
    if not (name.startswith(start) and name.endswith(end) and len(name) >= len(start) + len(end)):
        return None
    return new_glob.replace("*", name[len(start) : len(name) - len(end)])


def _fits(name: str, glob: str) -> bool:
    return name == glob or fnmatchcase(name, glob)


def _matches(pair: tuple[str, str], glob: str) -> bool:
    return any(_fits(name, glob) for name in pair)


def _alone(
    named: dict[str, Experiment],
    others: dict[str, Experiment],
    with_partner: set[str],
    globs: Sequence[str],
    only: Sequence[str],
) -> tuple[str, ...]:
    """Return what has no partner, of what the rules mean, and what the other side does not have as it is."""
    return tuple(
        name
        for name, experiment in named.items()
        if name not in with_partner
        and experiment != others.get(name)
        and all(not meant or any(_fits(name, glob) for glob in meant) for meant in (globs, only))
    )


def _unknown(what: str, glob: str, names: list[str]) -> PlanError:
    hint = did_you_mean(glob, names) or f"there are: {name_first(sorted(set(names)), 8)}"
    return PlanError(f"{what}: no such experiment: {glob}", hint=hint)
