"""Hashes of the local files that an experiment reads: its data, task files and model.

Of weights only name and size count: reading 15 GB on a login node would be rude, and they do not change under a config
that stays the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hpcbench.data.registry import read_registry
from hpcbench.data.sources import REGISTRY_MARK

CHUNK_BYTES = 1 << 20
WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf", ".msgpack", ".h5", ".onnx"})
SKIPPED_FOLDERS = frozenset({"__pycache__", ".git"})


def hash_inputs(paths: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 (hex) of each path that exists; folders by their sorted contents."""
    found = {}
    for name in sorted(set(paths)):
        registry, mark, dataset = name.rpartition(REGISTRY_MARK)
        if Path(name).exists():
            found[name] = _hash_path(Path(name))
        elif mark and Path(registry).is_file() and dataset in (entries := read_registry(Path(registry))):
            found[name] = _hash_registered(entries[dataset], Path(registry).parent)
    return found


def _hash_registered(entry: Mapping[str, Any], folder: Path) -> str:
    """Return the hash of a registry's entry and of the data that it names; other entries do not count."""
    digest = hashlib.sha256(json.dumps(entry, sort_keys=True).encode())
    data = folder / str(entry.get("file_name", ""))
    if "file_name" in entry and data.exists():
        digest.update(_hash_path(data).encode())
    return digest.hexdigest()


def _hash_path(path: Path) -> str:
    digest = hashlib.sha256()
    if path.is_file():
        _feed_file(digest, path)
        return digest.hexdigest()
    for file in sorted(path.rglob("*")):
        if not file.is_file() or SKIPPED_FOLDERS & set(file.relative_to(path).parts):
            continue
        digest.update(os.fsencode(file.relative_to(path)) + b"\0")  # a file name may be any bytes
        if file.suffix in WEIGHT_SUFFIXES:
            digest.update(str(file.stat().st_size).encode())
        else:
            _feed_file(digest, file)
    return digest.hexdigest()


def _feed_file(digest: hashlib._Hash, file: Path) -> None:
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
