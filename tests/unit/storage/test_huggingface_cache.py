"""Revisions of models in the cache of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.hub.models import find_files, locate_model
from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.huggingface_cache import find_snapshot

COMMITS = {"main": "a" * 40, "v1.0": "b" * 40, "refs/pr/1": "c" * 40}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    repository = tmp_path / "models--me--mine"
    for name, commit in COMMITS.items():
        (repository / "refs" / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / "refs" / name).write_text(commit)
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text("{}")
    return {"HF_HUB_CACHE": str(tmp_path)}


@pytest.mark.parametrize("revision", [None, *COMMITS, *COMMITS.values()])
def test_a_revision_is_found_by_branch_tag_or_commit(environ: dict[str, str], revision: str | None) -> None:
    found = find_snapshot("me/mine", environ, revision)
    assert found is not None
    assert found.name == COMMITS.get(revision or "main", revision)
    args = SftArgs(model_id_or_path="me/mine", model_revision=revision)
    place = locate_model(args, environ)
    assert place is not None
    assert find_files(place, environ) == found


@pytest.mark.parametrize("revision", ["v2.0", "d" * 40, "../snapshots", "../../models--me--mine/refs/main"])
def test_a_revision_that_is_not_there_is_not_found(environ: dict[str, str], revision: str) -> None:
    assert find_snapshot("me/mine", environ, revision) is None
