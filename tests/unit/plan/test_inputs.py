"""Hashes of local files and folders: content decides, whatever the files are called."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest

from hpcbench.plan import inputs
from hpcbench.plan.inputs import count_unread_bytes, hash_inputs
from hpcbench.storage.hash_cache import HashCache


def test_a_file_name_that_is_not_utf8_is_part_of_the_hash(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    before = hash_inputs({str(folder)})
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_text("x", encoding="utf-8")
    assert hash_inputs({str(folder)}) != before


def test_the_hash_of_a_file_is_that_of_its_bytes_and_of_weights_in_a_folder_of_their_size(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "a.safetensors").write_text("abc")
    expected = sha256(b"a.safetensors\x003" + b"config.json\x00{}").hexdigest()
    assert hash_inputs({str(folder)}) == {str(folder): expected}
    (folder / "a.safetensors").write_text("xyz")
    assert hash_inputs({str(folder)}) == {str(folder): expected}
    assert hash_inputs({str(folder / "config.json")}) == {str(folder / "config.json"): sha256(b"{}").hexdigest()}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HashCache:
    monkeypatch.setattr(inputs, "CACHED_BYTES", 1)
    # Files of a test are seconds old; how old they must be is tested with the cache.
    monkeypatch.setattr("hpcbench.storage.hash_cache.MIN_AGE_S", -1.0)
    return HashCache(tmp_path / "cache" / "hashes.json")


def test_what_was_hashed_is_not_read_again_until_it_changes(
    tmp_path: Path, cache: HashCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = tmp_path / "a.jsonl", tmp_path / "folder"
    folder.mkdir()
    file.write_text("{}\n")
    (folder / "b.jsonl").write_text("{}\n{}\n")
    (folder / "w.bin").write_text("x" * 1000)
    (tmp_path / "dataset_info.json").write_text(json.dumps({"r": {"file_name": "a.jsonl"}}))
    paths = [str(file), str(folder), f"{tmp_path}/dataset_info.json#r"]
    plain = hash_inputs(paths)
    assert count_unread_bytes(paths, cache) == 3 + 6 + 3
    assert hash_inputs(paths, cache=cache) == plain
    assert count_unread_bytes(paths, cache) == 0
    with monkeypatch.context() as patched:
        patched.setattr(inputs, "_read_hash", lambda _path: pytest.fail("read again"))
        assert hash_inputs(paths, cache=cache) == plain
    (folder / "w.bin").write_text("x" * 1001)
    assert count_unread_bytes(paths, cache) == 6
    assert hash_inputs(paths, cache=cache) == hash_inputs(paths)
    assert hash_inputs(paths)[str(folder)] != plain[str(folder)]


def test_results_of_hpcbench_below_an_input_folder_and_passing_files_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text("task: a\n")
    before = hash_inputs([str(tmp_path)])
    suite = tmp_path / "logs" / "s"
    (suite / "submissions").mkdir(parents=True)
    (suite / "suite.json").write_text("{}")
    (suite / "a").mkdir()
    (suite / "a" / "job.json").write_text("{}")
    (tmp_path / "logs" / "local").mkdir()
    (tmp_path / "logs" / "local" / "runner.json").write_text("{}")
    (tmp_path / ".nfs0000001").write_text("open")
    (tmp_path / ".task.yaml.swp").write_text("edited")
    assert hash_inputs([str(tmp_path)]) == before
    (tmp_path / "logs" / "mine.py").write_text("1\n")
    assert hash_inputs([str(tmp_path)]) != before
