"""The weights of a model folder, by their headers: which tensors there are, of which shapes, and whether all is there.

In: a folder. Out: names and shapes, or what is wrong with a file. Of a file of safetensors its first kilobytes are read
(8 bytes of length, then JSON: https://huggingface.co/docs/safetensors), never a weight, and nothing is unpickled.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hpcbench.errors import WorkerError, name_first

SAFETENSORS: Final = "model.safetensors"
PICKLED: Final = "pytorch_model.bin"
INDEX_SUFFIX: Final = ".index.json"
WEIGHT_NAMES: Final = (SAFETENSORS, SAFETENSORS + INDEX_SUFFIX, PICKLED, PICKLED + INDEX_SUFFIX)
"""Where transformers looks, in this order."""

LFS_MARK: Final = b"version https://git-lfs.github.com/spec/"
_LENGTH_BYTES: Final = 8
_LONGEST_HEADER: Final = 100_000_000
"""The limit of the safetensors library, in bytes."""

Shape = tuple[int, ...]


class ModelFileError(WorkerError):
    """A file of a model folder is missing or cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What a model folder's weights are."""

    names: frozenset[str] = frozenset()
    """Of all tensors; empty where only the weights themselves could tell, as in a single pytorch_model.bin."""
    shapes: Mapping[str, Shape]
    """By name, as far as a header says."""


def read_weights(folder: Path) -> Weights:
    """Return the tensors that transformers would load.

    Raises:
        ModelFileError: there are none, a file of them is missing, cut off, or a Git LFS pointer.
    """
    name = next((name for name in WEIGHT_NAMES if (folder / name).is_file()), None)
    if name is None:
        raise ModelFileError(f"{folder} holds no weights", hint=f"transformers looks for {SAFETENSORS} or {PICKLED}")
    if not name.endswith(INDEX_SUFFIX):
        shapes = read_shapes(folder / name)
        return Weights(names=frozenset(shapes), shapes=shapes)
    return _read_shards(folder, folder / name)


def check_lfs(path: Path) -> None:
    """Raise where a file is the pointer that `git clone` leaves without Git LFS.

    Raises:
        ModelFileError: it is one, or the user may not read it.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(len(LFS_MARK)) != LFS_MARK:
                return
    except PermissionError as error:
        raise ModelFileError(
            f"{path} cannot be read: {error.strerror}", hint=f"ask its owner for chmod -R a+rX {path.parent}"
        ) from error
    raise ModelFileError(
        f"{path} is a Git LFS pointer, {path.stat().st_size} bytes, and not the file itself",
        hint=f"run `git lfs pull` in {path.parent}",
    )


def _read_shards(folder: Path, index: Path) -> Weights:
    check_lfs(index)
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shard_of = {str(tensor): str(shard) for tensor, shard in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{index} cannot be read: no `weight_map` of tensors to files in it") from error
    shards = sorted(set(shard_of.values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise ModelFileError(
            f"{folder} lacks {len(missing)} of the {len(shards)} files that {index.name} names: {name_first(missing)}",
            hint="download the model again",
        )
    found = {shard: read_shapes(folder / shard) for shard in shards}
    for tensor, shard in shard_of.items():
        if found[shard] and tensor not in found[shard]:
            raise ModelFileError(f"{folder / shard} has no {tensor}, which {index.name} says that it has")
    shapes = {name: shape for tensors in found.values() for name, shape in tensors.items()}
    return Weights(names=frozenset(shard_of), shapes=shapes)


def read_shapes(path: Path) -> Mapping[str, Shape]:
    """Return the shapes of a file's tensors, none where it is not safetensors."""
    check_lfs(path)
    if path.suffix == ".safetensors":
        return _read_header(path)
    with path.open("rb") as stream:
        is_zip = stream.read(2) == b"PK"
    if path.stat().st_size == 0 or (is_zip and not zipfile.is_zipfile(path)):
        raise ModelFileError(f"{path} is cut off after {path.stat().st_size} bytes", hint="download it again")
    return {}


def _read_header(path: Path) -> Mapping[str, Shape]:
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        header = stream.read(length) if length <= min(size, _LONGEST_HEADER) else b""
    try:
        tensors: dict[str, Any] = json.loads(header)
        tensors.pop("__metadata__", None)
        end = max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
        shapes = {name: tuple(int(size) for size in tensor["shape"]) for name, tensor in tensors.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ModelFileError(f"{path} ({size} bytes) is not safetensors", hint="download it again") from error
    expected = _LENGTH_BYTES + length + end
    if size < expected:
        raise ModelFileError(f"{path} is cut off: {size} of {expected} bytes", hint="download it again")
    if size > expected:
        raise ModelFileError(f"{path} has {size - expected} bytes too many", hint="download it again")
    return shapes
