"""ModelScope's downloads are found by their files, in the layouts of all versions of its client."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.storage.modelscope_cache import Kind, cache_folder, find_repository


@pytest.mark.parametrize(
    ("kind", "inside"),
    [
        ("models", "models/qwen--Qwen2.5-1.5B/snapshots/master"),
        ("models", "models/qwen--Qwen2.5-1.5B/snapshots/v1.0"),
        ("models", "hub/models/qwen/Qwen2___5-1___5B"),
        ("models", "models/qwen/Qwen2___5-1___5B"),
        ("models", "hub/qwen/Qwen2___5-1___5B"),
        ("models", "qwen/Qwen2.5-1.5B"),
        ("datasets", "datasets/qwen--Qwen2.5-1.5B/snapshots/master"),
        ("datasets", "hub/datasets/qwen/Qwen2___5-1___5B"),
    ],
)
def test_each_layout_is_found(tmp_path: Path, kind: Kind, inside: str) -> None:
    environ = {"MODELSCOPE_CACHE": str(tmp_path)}
    assert find_repository(kind, "qwen/Qwen2.5-1.5B", environ) is None
    (tmp_path / inside).mkdir(parents=True)
    assert find_repository(kind, "qwen/Qwen2.5-1.5B", environ) is None, "an empty folder holds nothing"
    (tmp_path / inside / "README.md").touch()
    assert find_repository(kind, "qwen/Qwen2.5-1.5B", environ) == tmp_path / inside


def test_of_two_revisions_neither_is_guessed(tmp_path: Path) -> None:
    for revision in ("v1", "v2"):
        folder = tmp_path / "models/me--x/snapshots" / revision
        folder.mkdir(parents=True)
        (folder / "config.json").touch()
    assert find_repository("models", "me/x", {"MODELSCOPE_CACHE": str(tmp_path)}) is None


def test_the_cache_is_in_the_home_unless_named() -> None:
    assert cache_folder({"HOME": "/home/me"}) == Path("/home/me/.cache/modelscope")
    assert cache_folder({"HOME": "/home/me", "MODELSCOPE_CACHE": "/scratch/ms"}) == Path("/scratch/ms")


@pytest.mark.parametrize("name", ["../models", "a/../../b", "x", "a/b/c", "", "a/.."])
def test_an_id_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "file").touch()
    assert find_repository("models", name, {"MODELSCOPE_CACHE": str(tmp_path)}) is None


def test_a_revision_is_found_where_the_cache_keeps_them_apart(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "me--mine" / "snapshots"
    (folder / "v1.0").mkdir(parents=True)
    (folder / "master").mkdir()
    environ = {"MODELSCOPE_CACHE": str(tmp_path)}
    assert find_repository("models", "me/mine", environ, "v1.0") == folder / "v1.0"
    assert find_repository("models", "me/mine", environ, "v2.0") is None
    assert find_repository("models", "me/mine", environ, "../snapshots/v1.0") is None
