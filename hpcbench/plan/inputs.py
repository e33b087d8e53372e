"""Hashes of the local files that an experiment reads: its data, task files and model.

Of weights only name and size count: reading 15 GB on a login node would be rude, and they do not change under a config
that stays the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hpcbench.data.local_splits import find_split_files, is_pattern
from hpcbench.data.registry import read_registry
from hpcbench.data.sources import REGISTRY_MARK
from hpcbench.storage.hash_cache import FilesState, HashCache, read_state
from hpcbench.storage.paths import TOKENS, SuitePaths

CHUNK_BYTES = 1 << 20
CACHED_BYTES = 16 << 20
"""Less than this is read each time, which takes no longer than to look into the cache."""
WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf", ".msgpack", ".h5", ".onnx"})
SKIPPED_FOLDERS = frozenset({"__pycache__", ".git", ".ipynb_checkpoints"})
_PASSING = re.compile(r"\.nfs[0-9a-f]+|\..*\.sw[a-p]")
"""Files of a moment: NFS's for a removed file that is still open, vim's for one that is being edited."""


def hash_inputs(
    paths: Iterable[str], *, cache: HashCache | None = None, tick: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Return the SHA-256 (hex) of each path that exists; folders by their sorted contents.

    Args:
        paths: files, folders, datasets of a registry as REGISTRY#NAME, and patterns of `eval_args.local_data`.
        cache: where hashes of large files are kept and looked up; None reads every byte.
        tick: called after each megabyte that is read; what it raises ends the reading.
    """
    found = {}
    for name in sorted(set(paths)):
        if Path(name).exists():
            found[name] = _hash_path(Path(name), cache, tick)
        elif (registered := _find_registered(name)) is not None:
            entry, data = registered
            digest = hashlib.sha256(json.dumps(entry, sort_keys=True).encode())
            if data is not None:
                digest.update(_hash_path(data, cache, tick).encode())
            found[name] = digest.hexdigest()
        elif files := _match(name):
            digest = hashlib.sha256()
            for path in files:
                digest.update(f"{path.name}\0{_hash_path(path, cache, tick)}\0".encode())
            found[name] = digest.hexdigest()
    return found


def count_unread_bytes(paths: Iterable[str], cache: HashCache) -> int:
    """Return how much `hash_inputs` would have to read."""
    total = 0
    for name in set(paths):
        registered = None if Path(name).exists() else _find_registered(name)
        path = Path(name) if registered is None else registered[1]
        for each in _match(name) or ([] if path is None else [path]):
            if each.exists():
                state = _read_state(each)
                total += state.num_bytes if cache.get(each, state) is None else 0
    return total


def _match(pattern: str) -> list[Path]:
    """Return the files on disk that a pattern names; of what is in an archive that is the archive."""
    if Path(pattern).exists() or not is_pattern(pattern):
        return []
    return list(dict.fromkeys(file.path for file in find_split_files(pattern)))


def _find_registered(name: str) -> tuple[Mapping[str, Any], Path | None] | None:
    """Return a registry's entry and the data that it names, if they are there; other entries do not count."""
    registry, mark, dataset = name.rpartition(REGISTRY_MARK)
    if not mark or not Path(registry).is_file():
        return None
    entry = read_registry(Path(registry)).get(dataset)
    if entry is None:
        return None
    data = Path(registry).parent / str(entry.get("file_name", ""))
    return entry, data if "file_name" in entry and data.exists() else None


def _hash_path(path: Path, cache: HashCache | None, tick: Callable[[], None]) -> str:
    if cache is None or (state := _read_state(path)).num_bytes < CACHED_BYTES:
        return _read_hash(path, tick)
    if (known := cache.get(path, state)) is not None:
        return known
    started_at = time.time()
    found = _read_hash(path, tick)
    cache.put(path, found, before=state, after=_read_state(path), started_at=started_at)
    return found


def _read_hash(path: Path, tick: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    if path.is_file():
        _feed_file(digest, path, tick)
        return digest.hexdigest()
    for file in _list_files(path):
        digest.update(os.fsencode(file.relative_to(path)) + b"\0")  # a file name may be any bytes
        if file.suffix in WEIGHT_SUFFIXES:
            digest.update(str(file.stat().st_size).encode())
        else:
            _feed_file(digest, file, tick)
    return digest.hexdigest()


def _list_files(folder: Path) -> list[Path]:
    """Return the files that count, sorted: without what comes and goes, and without results of hpcbench."""
    found = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and not SKIPPED_FOLDERS & set(file.relative_to(folder).parts)
        and _PASSING.fullmatch(file.name) is None
    ]
    # A save directory below an input folder grows while jobs run.
    plans = [file for file in found if file.name == "suite.json"]
    suites = {plan.parent for plan in plans if SuitePaths(plan.parents[1], plan.parent.name).submissions.is_dir()}
    results = suites | {suite.parent / name for suite in suites for name in ("local", TOKENS)}
    return [file for file in found if results.isdisjoint(file.parents)] if results else found


def _read_state(path: Path) -> FilesState:
    if path.is_file():
        return read_state([path])
    files = _list_files(path)
    weights = [file for file in files if file.suffix in WEIGHT_SUFFIXES]
    return read_state([file for file in files if file.suffix not in WEIGHT_SUFFIXES], unread=weights)


def _feed_file(digest: hashlib._Hash, file: Path, tick: Callable[[], None]) -> None:
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            tick()
