"""Files of which exactly one writer may be the first: on NFS that loses an answer, and where there are no hard links."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcbench.cluster.doctor import check_save_dir
from hpcbench.storage.json_files import create_json, links_work, read_json, write_text_parts

real_link = os.link


def link_with_a_lost_answer(source: Path, target: Path) -> None:
    """Link, lose the answer, and find the link there when the request is sent again."""
    real_link(source, target)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)


@pytest.fixture(params=[errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS])
def without_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(request.param, os.strerror(request.param), source, None, target)

    monkeypatch.setattr(os, "link", refuse)


def test_a_link_that_was_made_twice_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", link_with_a_lost_answer)
    file = tmp_path / "claim.json"
    assert create_json(file, {"who": 1})
    monkeypatch.setattr(os, "link", real_link)
    assert not create_json(file, {"who": 2})
    assert read_json(file) == {"who": 1}
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.usefixtures("without_links")
def test_without_hard_links_one_writer_wins_as_well(tmp_path: Path) -> None:
    file = tmp_path / "claim.json"
    assert create_json(file, {"who": 1})
    assert not create_json(file, {"who": 2})
    assert read_json(file) == {"who": 1}
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.usefixtures("without_links")
def test_a_writer_that_was_replaced_while_it_wrote_has_not_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "claim.json"
    monkeypatch.setattr("hpcbench.storage.json_files.sync_folder", lambda _: (tmp_path / "other").replace(file))
    (tmp_path / "other").write_text("{}")
    assert not create_json(file, {"who": 1})


@pytest.mark.usefixtures("without_links")
def test_a_full_disk_leaves_no_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = iter([None, OSError(errno.ENOSPC, "No space left on device")])

    def sync(_: int) -> None:
        if (error := next(syncs)) is not None:
            raise error

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OSError, match="No space left"):
        create_json(tmp_path / "claim.json", {"who": 1})
    assert list(tmp_path.iterdir()) == []


def test_hard_links_are_found(tmp_path: Path) -> None:
    assert links_work(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_links")
def test_missing_hard_links_are_found(tmp_path: Path) -> None:
    assert not links_work(tmp_path)
    assert list(tmp_path.iterdir()) == []
    [found] = [check for check in check_save_dir(tmp_path, local_mode=True) if check.name == "save dir write"]
    assert (found.level, "hard links do not" in found.message) == ("ok", True)


def test_a_text_that_could_not_be_made_to_its_end_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    def parts() -> Iterator[str]:
        yield "new"
        raise KeyError("the rest")

    file = tmp_path / "report.json"
    file.write_text("old", encoding="utf-8")
    with pytest.raises(KeyError):
        write_text_parts(file, parts())
    assert (file.read_text(encoding="utf-8"), list(tmp_path.iterdir())) == ("old", [file])
