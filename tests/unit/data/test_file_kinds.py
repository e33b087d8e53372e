"""What a file holds: told by its first bytes, whatever it is called."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcbench.data.file_kinds import Kind, recognize
from hpcbench.data.files import read_rows
from hpcbench.errors import DataError, MissingLibraryError

LINES = b'{"a": 1}\n{"a": 2}\n'


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("rows", LINES, Kind.JSON_LINES),
        ("rows.csv", LINES, Kind.JSON_LINES),
        ("rows.txt", b'[{"a": 1}]', Kind.JSON),
        ("rows.txt", b"[Chapter 1]\n", Kind.TEXT),
        ("rows.csv", b"{a},[b]\n", Kind.CSV),
        ("rows.parquet", LINES, Kind.JSON_LINES),
        ("rows.json", b'{\n"a": 1}', Kind.JSON),
        ("rows.jsonl", b"PAR1...", Kind.PARQUET),
    ],
)
def test_first_bytes_decide(tmp_path: Path, name: str, content: bytes, kind: Kind) -> None:
    (tmp_path / name).write_bytes(content)
    assert recognize(tmp_path / name).kind is kind


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer, 63 bytes, in place of the data\n  hint: run `git lfs pull` in its repository"),
        ("{}".encode("utf-16"), "is UTF-16 text; expected: UTF-8\n  hint: iconv -f UTF-16 -t UTF-8 rows > new.rows"),
        (('{"a": "b"}' * 9).encode("utf-16-le"), "is UTF-16 text; expected: UTF-8\n  hint: iconv -f UTF-16 -t UTF-8 rows > new.rows"),
        (b"\n<!DOCTYPE html><html>", "is an HTML page, as a failed download leaves it; expected: {expected}"),
        (b"PK\x03\x04...", "is a zip archive (xlsx files are such, too); expected: {expected}\n  hint: unpack it, or save the table as CSV"),
        (b"\x00\x01\x02", "is a binary file of an unknown kind, or holds NUL bytes; expected: {expected}"),
        (b"a,b\n1,2\n", "unknown kind of dataset file: text that begins with 'a,b'; expected: {expected}\n  hint: name it .csv, .tsv or .txt if it is such a file"),
    ],
)  # fmt: skip
def test_what_is_no_data_is_named(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "rows").write_bytes(content)
    with pytest.raises(DataError) as caught:
        recognize(tmp_path / "rows")
    expected = "JSON lines, JSON, CSV, TSV, text, parquet or arrow; text may be compressed (.gz, .zst, .bz2, .xz)"
    assert str(caught.value) == f"{tmp_path}/rows: " + fault.format(expected=expected)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone: cannot be read: No such file or directory"):
        recognize(tmp_path / "gone")


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_compressed_text_is_read_and_a_cut_or_damage_is_named(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    check_compressed(tmp_path, suffix, pack(b"a,b\n" + b"1,2\n" * 9))


def test_zstd_is_read_over_all_its_frames(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    pack = zstandard.ZstdCompressor().compress
    check_compressed(tmp_path, ".zst", pack(b"a,b\n" + b"1,2\n" * 4) + pack(b"1,2\n" * 5))


def test_where_zstandard_is_missing_the_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingLibraryError) as caught:
        recognize(tmp_path / "a.jsonl.zst")
    assert str(caught.value) == (
        f"{tmp_path}/a.jsonl.zst: compressed with zstd, and the library zstandard is not installed here\n"
        '  hint: pip install zstandard, which "hpcbench-llm[train]" brings'
    )


def check_compressed(folder: Path, suffix: str, packed: bytes) -> None:
    for name in (f"rows.csv{suffix}", "rows.csv"):
        (folder / name).write_bytes(packed)
        assert [row for row, _ in read_rows(folder / name)] == [{"a": "1", "b": "2"}] * 9
    (folder / "cut.csv").write_bytes(packed[:-6])
    with pytest.raises(DataError, match=r"cut\.csv: is cut off: its \w+ data end too early"):
        list(read_rows(folder / "cut.csv"))
    middle = len(packed) // 2
    (folder / "bad.csv").write_bytes(packed[:middle] + b"\xff\xff\xff\xff" + packed[middle + 4 :])
    with pytest.raises(DataError, match=r"bad\.csv: "):
        list(read_rows(folder / "bad.csv"))
