"""Hashes of large files and folders, kept from one run to the next in the user's cache folder.

In: the state of files and their hash. Out: the hash of what has not changed since. A hash is kept only of files that
were old when reading began: within the resolution of a file server's clock a later change would leave the same times.
What cannot be read or written there is only slower.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.package_data import user_cache_dir

MIN_AGE_S: Final = 10.0
"""Covers clocks that count whole seconds, and two hosts whose clocks differ by some."""
MAX_ENTRIES: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesState:
    """What changes whenever the content of some files does."""

    digest: str
    """SHA-256 (hex) of names, devices, inodes, sizes and times; among these ctime, which no program can set back."""
    num_bytes: int
    """Of the content that is hashed."""
    changed_at: float
    """When the newest of them changed, in seconds since 1970, by the clock of its file server."""


def read_state(files: Iterable[Path], *, unread: Iterable[Path] = ()) -> FilesState:
    """Return the state of files in their order.

    Args:
        files: those whose content is hashed.
        unread: those of which only name and size are.

    Raises:
        OSError: one is not there, or may not be looked at.
    """
    digest = hashlib.sha256()
    num_bytes, changed_at = 0, 0.0
    hashed = list(files)
    for index, file in enumerate([*hashed, *unread]):
        found = file.stat()
        parts = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        digest.update(os.fsencode(file) + f"\0{parts}\0".encode())
        num_bytes += found.st_size if index < len(hashed) else 0
        changed_at = max(changed_at, found.st_mtime, found.st_ctime)
    return FilesState(digest=digest.hexdigest(), num_bytes=num_bytes, changed_at=changed_at)


def hash_file(file: Path) -> str:
    """Return the SHA-256 (hex) of a file's content.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def find_cache_file(environ: Mapping[str, str]) -> Path:
    """Return where a user's hashes are kept, whether the file exists or not."""
    return user_cache_dir(environ) / "hashes.json"


class HashCache:
    """Hashes by path, each with the state that it is the hash of."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def get(self, path: Path, state: FilesState) -> str | None:
        """Return the hash (hex) of what is at the path in this state, or None where it is not known."""
        entry = self._read().get(str(path))
        return entry["hash"] if entry is not None and entry["state"] == state.digest else None

    def put(self, path: Path, hashed: str, *, before: FilesState, after: FilesState, started_at: float) -> None:
        """Keep a hash, unless the files may have changed in a way that their state does not show.

        Args:
            path: file or folder.
            hashed: its hash (hex).
            before: its state before it was read.
            after: its state after it was read.
            started_at: when reading began, in seconds since 1970.
        """
        if before != after or started_at - before.changed_at < MIN_AGE_S:
            return
        # Read again, since another run may have added some; of two that write at once one is forgotten and reads again.
        entries = {name: entry for name, entry in self._read().items() if name != str(path)}
        entries[str(path)] = {"hash": hashed, "state": before.digest}
        # As a list: JSON objects are written with sorted keys, and the oldest entries are those that go.
        newest = [[name, entry] for name, entry in entries.items()][-MAX_ENTRIES:]
        try:
            write_json(self._file, {"entries": newest}, sync=False)
        except OSError:
            return

    def _read(self) -> dict[str, dict[str, str]]:
        value = read_json(self._file) or {}
        found = value.get("entries")
        return {pair[0]: pair[1] for pair in found if _is_entry(pair)} if isinstance(found, list) else {}


def _is_entry(pair: object) -> bool:
    match pair:
        case [str(), {"hash": str(), "state": str()}]:
            return True
        case _:
            return False
