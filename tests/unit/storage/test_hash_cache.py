"""Hashes that are kept between runs: found again until anything about the files changes, and never of young files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcbench.storage import hash_cache
from hpcbench.storage.hash_cache import MIN_AGE_S, HashCache, find_cache_file, read_state


def keep(cache: HashCache, path: Path, hashed: str = "ab", *, age_s: float = MIN_AGE_S + 1) -> None:
    state = read_state([path])
    cache.put(path, hashed, before=state, after=read_state([path]), started_at=state.changed_at + age_s)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("{}\n")
    return path


def test_a_hash_is_found_again_by_a_later_run(tmp_path: Path, data: Path) -> None:
    keep(HashCache(tmp_path / "h.json"), data)
    assert HashCache(tmp_path / "h.json").get(data, read_state([data])) == "ab"


def test_a_change_that_leaves_size_and_time_is_seen(tmp_path: Path, data: Path) -> None:
    cache = HashCache(tmp_path / "h.json")
    keep(cache, data)
    before = data.stat()
    while True:  # ctime has the resolution of the kernel's tick
        data.write_text("[]\n")
        os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
        if data.stat().st_ctime_ns != before.st_ctime_ns:
            break
        time.sleep(0.001)
    assert (data.stat().st_size, data.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert cache.get(data, read_state([data])) is None


def test_a_young_file_is_not_kept(tmp_path: Path, data: Path) -> None:
    cache = HashCache(tmp_path / "h.json")
    keep(cache, data, age_s=MIN_AGE_S - 1)
    assert cache.get(data, read_state([data])) is None


def test_a_file_that_changed_while_it_was_read_is_not_kept(tmp_path: Path, data: Path) -> None:
    cache = HashCache(tmp_path / "h.json")
    before = read_state([data])
    data.write_text("{}\n{}\n")
    cache.put(data, "ab", before=before, after=read_state([data]), started_at=before.changed_at + 60)
    assert cache.get(data, before) is None


def test_the_oldest_entries_go_and_a_broken_file_is_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    monkeypatch.setattr(hash_cache, "MAX_ENTRIES", 3)
    cache = HashCache(tmp_path / "h.json")
    files = [tmp_path / name for name in "dcba"]
    for file in files:
        file.write_text(file.name)
        keep(cache, file, file.name)
    assert [cache.get(file, read_state([file])) for file in files] == [None, "c", "b", "a"]
    (tmp_path / "h.json").write_text('{"entries": [["x"], 3, ["a", {"hash": 1}]]}')
    assert cache.get(files[0], read_state([files[0]])) is None
    keep(cache, data)
    assert cache.get(data, read_state([data])) == "ab"


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path, data: Path) -> None:
    (tmp_path / "file").write_text("")
    keep(HashCache(tmp_path / "file" / "h.json"), data)


def test_the_cache_is_in_the_users_cache_folder() -> None:
    assert find_cache_file({"HOME": "/home/me"}) == Path("/home/me/.cache/hpcbench/hashes.json")
    assert find_cache_file({"HOME": "/home/me", "XDG_CACHE_HOME": "/c"}) == Path("/c/hpcbench/hashes.json")
