"""What plan reads of large files: nothing where there is nothing to compare with, all of them otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit import submit_plan
from hpcbench.submit.submit_plan import make_requests, preview_requests
from tests.support.job_cases import experiment, suite


def test_a_large_file_is_read_only_for_experiments_that_were_planned_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(submit_plan, "READ_FOR_NOTHING_BYTES", 10)
    (tmp_path / "large.jsonl").write_text("{}\n" * 10)
    (tmp_path / "small.jsonl").write_text("{}\n")
    names = {"old": "large", "new": "large", "other": "small"}
    wanted = suite(
        *(
            experiment(name, args=SftArgs(model_type="qwen-7b-chat", dataset=(f"{tmp_path}/{data}.jsonl",)))
            for name, data in names.items()
        )
    )
    signed = make_requests(wanted, tmp_path)
    assert all(request.fingerprint for request in signed)

    def unsigned() -> set[str]:
        found = {request.ref: request.fingerprint for request in preview_requests(wanted, tmp_path)}
        assert all(found[full.ref] in {full.fingerprint, ""} for full in signed)
        return {full.experiment for full in signed if found[full.ref] == ""}

    assert unsigned() == {"old", "new"}
    write_json(SuitePaths(tmp_path, "tuners").job("old", "train").request, {})
    # The file is read for one of them, and then known for the other.
    assert unsigned() == set()


def test_a_submit_says_when_it_reads_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a.jsonl").write_text("{}\n")
    wanted = suite(experiment("a", args=SftArgs(model_type="qwen-7b-chat", dataset=(f"{tmp_path}/a.jsonl",))))
    make_requests(wanted, tmp_path)
    assert caplog.messages == []
    monkeypatch.setattr(submit_plan, "SAID_BYTES", 2)
    make_requests(wanted, tmp_path)
    assert caplog.messages == ["reading 0.0 GB of data and models for their hashes"]
