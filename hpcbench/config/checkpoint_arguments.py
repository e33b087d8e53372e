"""What a checkpoint folder in `ckpt_dir` says of its model and training, put into the arguments that leave it open.

In: the arguments of an experiment and where each was written. Out: the same with what the folder fills in, problems
with file and line. Of the checkpoint only its small files are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from hpcbench.errors import HpcbenchError, Problem
from hpcbench.model_files.adapters import CheckpointFolder, read_checkpoint_folder
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.request import read_request
from hpcbench.storage.located_yaml import Located
from hpcbench.storage.paths import PEFT_CONFIG

CKPT_DIR: Final = "ckpt_dir"
MODEL_NAMES: Final = ("model_type", "model_id_or_path")
_NEVER_TAKEN: Final = "trust_remote_code"
"""Whether a model's code may run is decided by who runs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCheckpoint:
    """A checkpoint folder that is there, and where it is named."""

    folder: Path
    found: CheckpointFolder
    where: Located

    @property
    def training(self) -> SftArgs | None:
        """The arguments of the training of hpcbench that wrote it, where it still lies in that job's folder."""
        if self.found.job is None:
            return None
        try:
            return read_request(self.found.job.request).args
        except HpcbenchError:  # of another version
            return None


def open_checkpoint(folder: Path, where: Located, problems: list[Problem]) -> NamedCheckpoint | None:
    """Return the checkpoint in a folder; None where there is no folder, or with the reason in `problems`."""
    if not folder.is_dir():
        return None
    found = read_checkpoint_folder(folder)
    if found is None:
        expected = f"a folder with {PEFT_CONFIG}, tuner.json or config.json"
        problems.append(where.problem(f"{folder} is not a checkpoint", expected=expected))
        return None
    return NamedCheckpoint(folder=folder, found=found, where=where)


def take_arguments(given: dict[str, Located], trained: SftArgs, names: Iterable[str], where: Located) -> None:
    """Put those of a training's arguments into `given` that it leaves open."""
    names_model = any(name in given for name in MODEL_NAMES)
    for name in names:
        is_open = name not in given and name != _NEVER_TAKEN and not (names_model and name in MODEL_NAMES)
        if not is_open or not trained.differs_from_default(name):
            continue
        value: Any = getattr(trained, name)
        value = tuple(replace(where, value=item, raw=None) for item in value) if isinstance(value, tuple) else value
        if isinstance(value, dict):
            value = {key: replace(where, value=item, raw=None) for key, item in value.items()}
        given[name] = replace(where, value=value, raw=None, source=CKPT_DIR)


def name_model(given: dict[str, Located], checkpoint: NamedCheckpoint, problems: list[Problem]) -> None:
    """Put the model that the folder names, or is, into arguments that name none."""
    if any(name in given for name in MODEL_NAMES):
        return
    folder, where = checkpoint.folder, checkpoint.where
    name = str(folder) if checkpoint.found.kind == "model" else checkpoint.found.base
    hint = "name it: model_id_or_path: a hub id or a folder"
    if name is None:
        problems.append(where.problem(f"{folder} is an adapter that does not say of which base", hint=hint))
    elif name.startswith(("/", ".", "~")) and not Path(name).is_dir():
        problems.append(where.problem(f"{folder} is an adapter of {name}, which is not here", hint=hint))
    else:
        given["model_id_or_path"] = replace(where, value=name, raw=None, source=CKPT_DIR)
