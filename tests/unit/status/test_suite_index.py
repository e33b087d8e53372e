"""The index of a large suite: what is taken from it, what is read anew, and that nothing else depends on it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hpcbench.schemas.collection import Collection
from hpcbench.schemas.shared_values import NotAlike, changed, differences
from hpcbench.schemas.states import JobState
from hpcbench.schemas.suite_folder import read_suites
from hpcbench.status import job_files
from hpcbench.status.collect import collect_suites
from hpcbench.status.suite_index import IndexedJob, read_index, write_index
from hpcbench.storage.json_files import FileSignature, read_signed_json, write_json
from hpcbench.storage.paths import JobPaths, SuitePaths
from tests.support.large_sweep import SUITE, sweep, write_save_dir
from tests.support.report_cases import quickstart, repeats, tuner

NUM_EXPERIMENTS = 30
LATER = datetime.now(UTC) + timedelta(hours=1)
"""When files that a test has just written are old."""


class Folder:
    """A save directory with a sweep, and which files of jobs the last look at it opened."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.save_dir, self.cache = place / "logs", place / "cache"
        self.opened: list[str] = []
        write_save_dir(self.save_dir, NUM_EXPERIMENTS)

        def count(path: str) -> object:
            self.opened.append(path)
            return read_signed_json(path)

        monkeypatch.setattr(job_files, "read_signed_json", count)

    def look(self, *, now: datetime = LATER, cached: bool = True) -> Collection:
        self.opened.clear()
        suites = read_suites(self.save_dir)
        return collect_suites(suites, lambda _: None, now, cache_folder=self.cache if cached else None)

    def job(self, number: int, job: str = "train") -> JobPaths:
        name = list(sweep(self.save_dir, number + 1))[number].name
        return SuitePaths(self.save_dir, SUITE).job(name, job)

    @property
    def index(self) -> Path:
        [file] = (self.cache / "suites").iterdir()
        return file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return Folder(tmp_path, monkeypatch)


def test_a_second_look_opens_no_file_and_finds_the_same(folder: Folder) -> None:
    first = folder.look()
    assert len(folder.opened) == 2 * 2 * NUM_EXPERIMENTS
    assert folder.look() == first
    assert folder.opened == []
    assert folder.look(cached=False) == first


def test_only_a_record_that_changed_is_read_again(folder: Folder) -> None:
    folder.look()
    changed = folder.job(7)
    value = json.loads(changed.record.read_text(encoding="utf-8"))
    value["metrics"]["train_loss"] = 0.125
    write_json(changed.record, value)
    found = folder.look()
    assert folder.opened == [str(changed.request), str(changed.record)]
    [metrics] = [job.record.metrics for job in found.jobs if job.folder == changed.folder and job.record is not None]
    assert metrics is not None
    assert metrics.model_dump()["train_loss"] == 0.125


def test_a_record_that_is_gone_is_not_taken_from_the_index(folder: Folder) -> None:
    folder.look()
    folder.job(3).record.unlink()
    found = folder.look()
    assert [job.state for job in found.jobs if job.folder == folder.job(3).folder] == [JobState.UNKNOWN]


def test_files_that_changed_just_before_are_read_again(folder: Folder) -> None:
    folder.look(now=datetime.now(UTC))
    assert not (folder.cache / "suites").exists()


def test_a_job_that_was_submitted_again_is_opened_since_nfs_may_show_an_old_state(folder: Folder) -> None:
    folder.look()
    [file] = (folder.save_dir / SUITE / "submissions").glob("sweep-train-0.json")
    value = json.loads(file.read_text(encoding="utf-8"))
    value["elements"] = {"5": value["elements"]["5"]}
    write_json(file.with_name("again.json"), value | {"key": "again", "created_at": "2026-07-02T00:00:00Z"})
    folder.look()
    assert folder.opened == [str(folder.job(5).request), str(folder.job(5).record)]


@pytest.mark.parametrize("content", ["", "{}", '{"written_by": "0.1 of long ago"}', "00000000 ", "[]\n[]\n"])
def test_an_index_that_cannot_be_used_is_written_anew(folder: Folder, content: str) -> None:
    first = folder.look()
    folder.index.write_text(content, encoding="utf-8")
    assert folder.look() == first
    assert folder.look() == first
    assert folder.opened == []


@pytest.mark.parametrize("damage", [b"[99, 99, []]", b'"eval-gsm9k"', b""])
def test_a_damaged_index_of_this_version_is_not_believed(folder: Folder, damage: bytes) -> None:
    first = folder.look()
    content = folder.index.read_bytes()
    folder.index.write_bytes(content.replace(b'"eval-gsm8k"', damage, 1))
    assert folder.look() == first


def test_an_index_that_was_cut_off_is_read_as_far_as_it_goes(folder: Folder) -> None:
    first = folder.look()
    content = folder.index.read_bytes()
    folder.index.write_bytes(content[: len(content) // 2])
    assert folder.look() == first


@pytest.mark.parametrize(("value", "base"), [(1.0, 1), (True, 1), (-0.0, 0.0), ("1", 1), (None, 0)])
def test_values_that_are_equal_but_written_otherwise_come_back_as_they_were(value: object, base: object) -> None:
    one, other = {"a": [{"b": value, "c": 2}]}, {"a": [{"b": base, "c": 2}]}
    assert repr(changed(other, differences(one, other))) == repr(one)


@pytest.mark.parametrize(
    ("value", "base"), [({"a": 1}, {"b": 1}), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ([1, 2], [1]), ([1], None)]
)
def test_values_of_another_form_have_no_differences(value: object, base: object) -> None:
    with pytest.raises(NotAlike):
        differences({"of": value}, {"of": base})


def test_without_a_place_for_the_index_everything_is_only_slower(folder: Folder) -> None:
    folder.cache.write_text("a file where a folder should be", encoding="utf-8")
    assert folder.look() == folder.look(cached=False)


def test_small_suites_have_no_index(folder: Folder) -> None:
    plan = SuitePaths(folder.save_dir, SUITE).plan
    value = json.loads(plan.read_text(encoding="utf-8"))
    write_json(plan, value | {"experiments": value["experiments"][:20]})
    for file in plan.parent.glob("submissions/*.json"):
        file.unlink()
    assert len(folder.look().jobs) == 40
    assert not (folder.cache / "suites").exists()


def test_the_folder_of_the_suite_is_not_written_to(folder: Folder) -> None:
    before = sorted(folder.save_dir.rglob("*"))
    folder.look()
    folder.look()
    assert sorted(folder.save_dir.rglob("*")) == before


@pytest.mark.parametrize("case", [quickstart, tuner, repeats])
def test_requests_and_records_of_each_kind_come_back_as_they_were(case: object, tmp_path: Path) -> None:
    assert callable(case)
    signature = FileSignature(1, 2, 3, 4)
    jobs = {
        job.ref: IndexedJob(job.request, signature, job.record, None if job.record is None else signature)
        for job in case().jobs
    }
    write_index(tmp_path / "index.json", jobs)
    assert read_index(tmp_path / "index.json") == jobs


def test_text_that_no_file_can_hold_is_only_slower(folder: Folder) -> None:
    record = folder.job(0).record
    value = json.loads(record.read_text(encoding="utf-8"))
    value["environment"]["python_executable"] = "/home/m\udcfcller/python"
    record.write_text(json.dumps(value), encoding="utf-8")  # as another program may

    assert folder.look() == folder.look(cached=False)
