"""The documents of an eval, read from the files that its attempts left."""

from __future__ import annotations

import json
from pathlib import Path

from hpcbench.schemas.samples import Sample, read_samples
from hpcbench.storage.paths import JobPaths


def write_samples(job: JobPaths, number: int, *lines: object) -> None:
    path = job.attempt(number).samples
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")


def test_samples_come_in_file_order(tmp_path: Path) -> None:
    job = JobPaths(tmp_path)
    write_samples(job, 1, {"task": "b", "doc_id": 1}, {"task": "a", "doc_id": 0})

    assert [(sample.task, sample.doc_id) for sample in read_samples(job)] == [("b", 1), ("a", 0)]


def test_a_sample_holds_all_that_the_job_wrote(tmp_path: Path) -> None:
    job = JobPaths(tmp_path)
    line = {
        "task": "gsm8k",
        "doc_id": 3,
        "doc_hash": "ab",
        "prompt": "1 + 1?",
        "target": "2",
        "responses": {"none": "2"},
        "metrics": {"exact_match,none": 1.0, "bleu,none": None},
    }
    write_samples(job, 1, line)

    assert list(read_samples(job)) == [Sample.model_validate(line)]
    assert next(read_samples(job)).model_dump() == line


def test_what_a_sample_does_not_have_is_missing(tmp_path: Path) -> None:
    job = JobPaths(tmp_path)
    write_samples(job, 1, {"task": "a", "doc_id": 0})

    sample = next(read_samples(job))
    assert (sample.doc_hash, sample.prompt, sample.target, sample.responses, sample.metrics) == (None,) * 3 + ({}, {})


def test_the_newest_attempt_with_samples_is_read(tmp_path: Path) -> None:
    job = JobPaths(tmp_path)
    write_samples(job, 2, {"task": "a", "doc_id": 2})
    write_samples(job, 10, {"task": "a", "doc_id": 10})
    job.attempt(11).folder.mkdir()

    assert [sample.doc_id for sample in read_samples(job)] == [10]


def test_lines_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    job = JobPaths(tmp_path)
    good = {"task": "a", "doc_id": 1}
    write_samples(job, 1, "", "{", "[1]", {"task": "a"}, {"task": "a", "doc_id": 0, "metrics": {"acc": [1]}}, good)

    assert [sample.doc_id for sample in read_samples(job)] == [1]


def test_keys_of_later_versions_are_left_out(tmp_path: Path) -> None:
    job = JobPaths(tmp_path)
    write_samples(job, 1, {"task": "a", "doc_id": 0, "new": 1})

    assert [sample.doc_id for sample in read_samples(job)] == [0]


def test_a_job_without_samples_has_none(tmp_path: Path) -> None:
    assert list(read_samples(JobPaths(tmp_path / "missing"))) == []
