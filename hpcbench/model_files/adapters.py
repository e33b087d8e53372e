"""Checkpoint folders: which base model an adapter in one belongs to, and whether that is the one it is put on.

In: a folder that hpcbench, peft or transformers wrote, and the name of a base. Out: what the folder holds, and the two
names where they differ. Nothing is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hpcbench.catalog.hubs import OnHub
from hpcbench.model_files.fault import Fault
from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import PEFT_CONFIG, TUNER_CONFIG, JobPaths

_CHECKPOINTS: Final = "checkpoints"
_CACHED: Final = "models--"
"""Begins the folder of a model in Hugging Face's cache: models--OWNER--NAME/snapshots/COMMIT."""
_DOT_OF_MODELSCOPE: Final = "___"
"""What ModelScope's cache writes in place of a dot."""
BASE_KEY: Final = "base_model_name_or_path"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFolder:
    """What a folder holds."""

    kind: Literal["peft", "hpcbench", "model"]
    """An adapter of peft's, one of hpcbench's own form, or a whole model."""
    base: str | None = None
    """The base that an adapter of peft's names."""
    job: JobPaths | None = None
    """The training of hpcbench that wrote it, where it still lies in that job's folder."""


def read_checkpoint_folder(folder: Path) -> CheckpointFolder | None:
    """Return what a folder holds, None where it is none."""
    job = JobPaths(folder.parent.parent) if folder.parent.name == _CHECKPOINTS else None
    if job is not None and not job.request.is_file():
        job = None
    if (folder / PEFT_CONFIG).is_file():
        base = (read_json(folder / PEFT_CONFIG) or {}).get(BASE_KEY)
        return CheckpointFolder(kind="peft", base=base if isinstance(base, str) and base else None, job=job)
    if (folder / TUNER_CONFIG).is_file():
        return CheckpointFolder(kind="hpcbench", job=job)
    return CheckpointFolder(kind="model", job=job) if (folder / "config.json").is_file() else None


def find_other_base(found: CheckpointFolder, model: Path | OnHub | None) -> Fault | None:
    """Return why an adapter cannot go on a model: it names another base. Both names are in the message."""
    if found.base is None or model is None:
        return None
    name = model.id if isinstance(model, OnHub) else str(model)
    if is_same_base(found.base, name):
        return None
    return Fault(
        argument="model_id_or_path",
        message=f"is an adapter of {found.base}, and the model is {name}",
        expected=f"model_id_or_path: {found.base}, or none, which takes it too",
        hint=f"where they are the same model, write {name} into {BASE_KEY} of its {PEFT_CONFIG}",
    )


def is_same_base(first: str, second: str) -> bool:
    """Return whether two names are of one model: the same folder, or the same last part of path or hub id.

    A base is often at another place than where its adapter was trained: on a hub, in a cache, in a scratch folder.
    """
    if first.startswith("/") and second.startswith("/") and Path(first).resolve() == Path(second).resolve():
        return True
    return _model_name(first) == _model_name(second)


def _model_name(text: str) -> str:
    parts = [part for part in text.split("/") if part] or [text]
    cached = next((part for part in parts if part.startswith(_CACHED)), None)
    name = parts[-1] if cached is None else cached.rpartition("--")[2]
    return name.replace(_DOT_OF_MODELSCOPE, ".").lower()
