"""The scores of single documents on both sides, paired by the documents that they belong to.

In: the runs' scores, with the folders of their eval jobs. Out: paired scores per task, or why there are none. lm-eval's
hash says which document a score is of. Scores are paired only where their means are the scores that both records hold:
neither a score that is not such a mean nor samples of another run can be taken for it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from hpcbench.compare.runs import RunScore
from hpcbench.compare.statistics import Stratum
from hpcbench.schemas.samples import Sample, read_samples
from hpcbench.storage.paths import JobPaths

TOLERANCE = 1e-6
"""How far the mean of the samples may be from the record's score."""
NO_SAMPLES = "no scores of single documents were kept"
NO_HASHES = "samples of hpcbench before 0.3 do not name their documents"
NOT_A_MEAN = "the score is not the mean of its documents' scores"

WITHOUT_TEXTS: dict[str, object] = {"prompt": None, "target": None, "responses": {}}

Document = tuple[str, str, int]
"""Task, hash, and which one of equal documents."""
Scores = Mapping[Document, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """The scores of the same documents on both sides."""

    strata: tuple[Stratum, ...]
    """The tasks."""
    num_documents: int

    @property
    def is_binary(self) -> bool:
        """Whether each side is one run and every score is 0 or 1, all documents of the same weight."""
        scores = [(stratum.before, stratum.after) for stratum in self.strata]
        weights = {round(stratum.weight * self.num_documents / len(stratum.before[0]), 9) for stratum in self.strata}
        return weights == {1.0} and all(
            len(side) == 1 and set(side[0]) <= {0.0, 1.0} for sides in scores for side in sides
        )

    @property
    def num_gained(self) -> int:
        """Documents that only the second side solved, of 0/1 scores."""
        return self._count(0.0, 1.0)

    @property
    def num_lost(self) -> int:
        """Documents that only the first side solved, of 0/1 scores."""
        return self._count(1.0, 0.0)

    def _count(self, before: float, after: float) -> int:
        pairs = Counter(
            pair for stratum in self.strata for pair in zip(stratum.before[0], stratum.after[0], strict=True)
        )
        return pairs[before, after]


class SampleFiles:
    """The samples of eval jobs, each file read once."""

    def __init__(self) -> None:
        self._read: dict[Path, tuple[Sample, ...]] = {}

    def of(self, folder: Path) -> tuple[Sample, ...]:
        """Return the samples of one job without their texts."""
        if folder not in self._read:
            samples = read_samples(JobPaths(folder))
            self._read[folder] = tuple(sample.model_copy(update=WITHOUT_TEXTS) for sample in samples)
        return self._read[folder]


def pair_documents(before: Sequence[RunScore], after: Sequence[RunScore], files: SampleFiles) -> Paired | str:
    """Return the scores of both sides' runs on the same documents, or why they cannot be paired."""
    sides: list[list[Scores]] = []
    for runs in (before, after):
        found = [_scores_of(run, files) for run in runs]
        reasons = [scores for scores in found if isinstance(scores, str)]
        if reasons:
            return reasons[0]
        sides.append([scores for scores in found if not isinstance(scores, str)])
    documents = set(sides[0][0])
    for scores in (*sides[0], *sides[1]):
        if set(scores) != documents:
            common, total = len(documents & set(scores)), len(documents | set(scores))
            return f"the documents differ: {common} of {total} are on both sides"
    for weights in _weightings(documents):
        if all(
            _is_mean(run, scores, weights)
            for runs, known in ((before, sides[0]), (after, sides[1]))
            for run, scores in zip(runs, known, strict=True)
        ):
            return _paired(sides[0], sides[1], weights)
    return NOT_A_MEAN


def _scores_of(run: RunScore, files: SampleFiles) -> Scores | str:
    """Return the scores of one run's documents, or why there are none."""
    if run.folder is None or run.lm_eval_key is None:
        return NO_SAMPLES
    samples = [sample for sample in files.of(run.folder) if run.task in {None, sample.task}]
    samples = [sample for sample in samples if run.lm_eval_key in sample.metrics]
    if not samples:
        return NO_SAMPLES
    if any(sample.doc_hash is None for sample in samples):
        return NO_HASHES
    found: dict[Document, float] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for sample in sorted(samples, key=lambda sample: (sample.task, sample.doc_id)):
        value = sample.metrics[run.lm_eval_key]
        if not isinstance(value, float):
            return NOT_A_MEAN
        place = (sample.task, str(sample.doc_hash))
        found[*place, seen[place]] = value
        seen[place] += 1
    return found


def _weightings(documents: Iterable[Document]) -> list[dict[str, float]]:
    """Return by task what part of the whole score its mean may be: by its documents, or the same for all tasks."""
    counts = Counter(task for task, _, _ in documents)
    total = counts.total()
    return [
        {task: count / total for task, count in sorted(counts.items())},
        {task: 1 / len(counts) for task in sorted(counts)},
    ]


def _is_mean(run: RunScore, scores: Scores, weights: Mapping[str, float]) -> bool:
    by_task: defaultdict[str, list[float]] = defaultdict(list)
    for (task, _, _), value in scores.items():
        by_task[task].append(value)
    whole = math.fsum(weight * fmean(by_task[task]) for task, weight in weights.items())
    return math.isclose(whole, run.value, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _paired(before: Sequence[Scores], after: Sequence[Scores], weights: Mapping[str, float]) -> Paired:
    documents = sorted(before[0])
    by_task = {task: [document for document in documents if document[0] == task] for task in weights}
    strata = tuple(
        Stratum(
            weight=weight,
            before=tuple(tuple(scores[document] for document in by_task[task]) for scores in before),
            after=tuple(tuple(scores[document] for document in by_task[task]) for scores in after),
        )
        for task, weight in weights.items()
    )
    return Paired(strata=strata, num_documents=len(documents))
