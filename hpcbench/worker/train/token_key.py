"""What decides the tokenized rows of a training: equal keys, equal rows.

In: the request, its template. Out: plain values, which name an entry of the token cache by their hash and stand in it
for people to compare; or None where something cannot be known without reading the data. It reads no rows.

Of local data the hashes count that the supervisor has just compared (`request.inputs`), of a hub's the state of its
cached files; of the model the files beside its weights, among them its tokenizer. hpcbench's own part is the code of
the rooms that make rows of data.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import hpcbench
from hpcbench.catalog.dataset_words import split_word
from hpcbench.data.sources import REGISTRY_MARK, find_dataset
from hpcbench.errors import HpcbenchError
from hpcbench.hub.models import find_files
from hpcbench.schemas.arguments import DataArgs, SftArgs
from hpcbench.schemas.request import JobRequest
from hpcbench.storage.hash_cache import hash_file
from hpcbench.storage.json_files import JsonObject
from hpcbench.worker.data.agent_format import find_agent_format
from hpcbench.worker.data.datasets import find_state
from hpcbench.worker.data.templates import Template
from hpcbench.worker.models.files import count_embeddings
from hpcbench.worker.models.source import model_place

FORMAT: Final = 1
"""Of the entries; a change makes all of them unknown."""
_NOT_DECIDING: Final = frozenset(
    {"preprocess_num_proc", "packing", "packing_length", "packing_strategy", "lazy_tokenize"}
)
"""Arguments of the data that change how rows are made or put together, and none of the rows."""
_OTHER_ARGUMENTS: Final = (
    "model_type",
    "template_type",
    "system",
    "trust_remote_code",
    "max_pixels",
    "rlhf_type",
    "max_prompt_length",
    "predict_with_generate",
)
DECIDING_ARGUMENTS: Final = (*sorted(DataArgs.model_fields.keys() - _NOT_DECIDING), *_OTHER_ARGUMENTS)
"""The arguments that rows depend on, beside the model."""
_LIBRARIES: Final = (
    *("transformers", "tokenizers", "sentencepiece", "tiktoken"),
    *("jinja2", "datasets", "pyarrow", "pillow"),
)
"""Distributions whose code reads data, renders chats or makes tokens."""
_CODE: Final = ("catalog", "data", "model_files", "worker/data", "worker/measure/rouge.py", "worker/train/tokenized.py")
_WEIGHTS: Final = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf", ".msgpack", ".h5", ".onnx"})


def find_key(request: JobRequest, args: SftArgs, template: Template) -> JsonObject | None:
    """Return everything that decides the rows, or None where some of it is not known."""
    try:
        data = [_identify(name, request, args) for name in _dataset_names(args)]
        folder = find_files(model_place(args), os.environ)
        model = None if folder is None else _hash_files(_beside_weights(folder))
    except (HpcbenchError, OSError):
        return None  # reading the data or loading the model says it, with a way on
    if model is None or not all(data):
        return None
    return {
        "format": FORMAT,
        "hpcbench": hpcbench.__version__,
        "code": _hash_code(),
        "python": platform.python_version(),
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name)) is not None},
        "arguments": args.model_dump(mode="json", include=set(DECIDING_ARGUMENTS)),
        "data": data,
        "model": model,
        "num_embeddings": count_embeddings(args),
        "chat_template": hashlib.sha256(repr(template.chat_template).encode()).hexdigest(),
        "agent": repr(find_agent_format(args)),
    }


def hash_key(key: JsonObject) -> str:
    """Return the name of a key's entry."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _dataset_names(args: SftArgs) -> list[str]:
    mixed = args.train_dataset_mix_ds if args.train_dataset_mix_ratio > 0 else ()
    return [*args.dataset, *args.val_dataset, *mixed]


def _identify(name: str, request: JobRequest, args: SftArgs) -> JsonObject | None:
    """Return where a dataset is, how it is read and what its content is; None where that is not known."""
    source = find_dataset(name, registry=args.dataset_info)
    if source.path is None:
        state: Any = find_state(source)
    else:
        bare = split_word(name).name
        state = request.inputs.get(bare) or request.inputs.get(f"{args.dataset_info}{REGISTRY_MARK}{bare}")
    return None if state is None else {"source": repr(source), "state": state}


def _hash_code() -> str:
    package = Path(hpcbench.__file__).parent
    places = [package / name for name in _CODE]
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*"))]
    return _hash_files(file for file in sorted(files) if file.suffix in {".py", ".yaml"})


def _beside_weights(folder: Path) -> Sequence[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix not in _WEIGHTS and file.is_file())


def _hash_files(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{hash_file(file)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
