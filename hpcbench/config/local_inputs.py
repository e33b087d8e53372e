"""Where a suite is on disk, and the files that it names: found and made absolute.

In: values as they were written. Out: the same values with absolute paths, and a problem for each that is not there.
What is in the files is looked at elsewhere: datasets by `data_checks.py`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hpcbench.catalog.dataset_words import ALL_ROWS, split_word
from hpcbench.catalog.datasets import DATASETS
from hpcbench.catalog.deepspeed import DEEPSPEED_WORDS, DeepSpeedFileError, read_deepspeed
from hpcbench.config.data_checks import DatasetChecker
from hpcbench.config.effects import Effects
from hpcbench.config.eval_local_data import LocalDataReader
from hpcbench.config.eval_tasks import EvalTaskChecks
from hpcbench.config.model_checks import ModelReader
from hpcbench.config.typed_fields import take_text, take_words
from hpcbench.data.file_kinds import DATA_SUFFIXES, data_suffix
from hpcbench.data.folders import holds_data
from hpcbench.data.registry import REGISTRY_NAME, is_of_datasets, read_registry
from hpcbench.errors import Problem, WorkerError, did_you_mean
from hpcbench.storage.located_yaml import Located
from hpcbench.storage.paths import PEFT_CONFIG, TUNER_CONFIG, JobPaths

OVERRIDE = "--set"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuitePlace:
    """A suite's name and file; relative paths start from the file's folder, those of --set from where it was typed."""

    name: str
    file: Path
    """Absolute."""
    typed_in: Path = field(default_factory=Path.cwd)
    """Folder in which --set was typed."""
    has_person: bool = False
    """Whether somebody at a terminal types the prompts of `cmd: infer`."""
    datasets: DatasetChecker = field(default_factory=DatasetChecker)
    models: ModelReader = field(default_factory=ModelReader)
    eval_tasks: EvalTaskChecks = field(default_factory=EvalTaskChecks)
    effects: Effects = field(default_factory=Effects)

    def __post_init__(self) -> None:
        self.datasets.models = self.models

    def base_of(self, value: Located) -> Path:
        """Return the folder that paths in this value are relative to."""
        return self.typed_in if value.source == OVERRIDE else self.file.parent

    def localise_args(self, args: Mapping[str, Located], problems: list[Problem]) -> dict[str, Located]:
        """Return training arguments with absolute paths."""
        found = dict(args)
        registry = self._find_registry(found, problems)
        for name in ("dataset", "val_dataset", "train_dataset_mix_ds"):
            if name in found:
                found[name] = self.localise_data(found[name], problems, registry=registry)
        for name in ("model_id_or_path", "ref_model_id_or_path"):
            if name in found:
                found[name] = self._localise_model(found[name], problems)
        if "ref_adapters" in found:
            found["ref_adapters"] = self.localise_folders(found["ref_adapters"], problems)
        if "resume_from_checkpoint" in found:
            found["resume_from_checkpoint"] = self.localise_folder(found["resume_from_checkpoint"], problems)
        if "deepspeed" in found:
            found["deepspeed"] = self._localise_deepspeed(found["deepspeed"], problems)
        return found

    def _find_registry(self, args: dict[str, Located], problems: list[Problem]) -> Path | None:
        """Put the registry's absolute path into the arguments: the one that they name, or the one beside the suite."""
        value = args.get("dataset_info")
        if value is not None and value.value is not None:
            if (text := take_text(value, problems)) is None:
                return None
            file = find_local(text, base=self.base_of(value))
            if file is not None and file.is_dir():
                file = file / REGISTRY_NAME
            if file is None or not file.is_file():
                hint = missing_hint(text, base=self.base_of(value))
                problems.append(value.problem(f"no such file: {text[:200]!r}", hint=hint))
                return None
            args["dataset_info"] = replace(value, value=str(file), raw=None)
            return file
        file = self.file.parent / REGISTRY_NAME
        named = args.get("dataset")
        # A folder that datasets saved has a file of the same name, which is not a registry.
        if value is not None or named is None or not file.is_file() or is_of_datasets(file):
            return None
        args["dataset_info"] = replace(named, value=str(file), raw=None)
        return file

    def localise_data(self, value: Located, problems: list[Problem], *, registry: Path | None = None) -> Located:
        """Return datasets with absolute paths for those that are files; names and hub ids stay."""
        if value.value is None:
            return value
        parts = value.items
        if parts is None:
            text = take_text(value, problems)
            if text is None:
                return value
            # A file whose name holds spaces or commas is one word all the same.
            whole = [text] if find_local(text, base=self.base_of(value)) else take_words(value, problems)
            parts = tuple(replace(value, value=word, raw=None) for word in whole)
        found = tuple(self._localise_dataset(part, problems, registry=registry) for part in parts)
        return replace(value, value=found, raw=None)

    def localise_folder(self, value: Located, problems: list[Problem]) -> Located:
        """Return the absolute path of a folder that must exist."""
        if value.value is None or (text := take_text(value, problems)) is None:
            return value
        found = find_local(text, base=self.base_of(value))
        if found is None:
            problems.append(
                value.problem(f"no such folder: {text[:200]!r}", hint=missing_hint(text, base=self.base_of(value)))
            )
        elif not found.is_dir():
            problems.append(value.problem(f"{text!r} is a file", expected="a folder"))
        return value if found is None else replace(value, value=str(found), raw=None)

    def localise_new_folder(self, value: Located, problems: list[Problem]) -> Located:
        """Return the absolute path of a folder that a job makes."""
        if value.value is None or (text := take_text(value, problems)) is None:
            return value
        path = Path(os.path.normpath(self.base_of(value) / Path(text).expanduser()))
        return replace(value, value=str(path), raw=None)

    def _localise_deepspeed(self, value: Located, problems: list[Problem]) -> Located:
        """Return the name of a shipped configuration of DeepSpeed, or the absolute path of the user's own."""
        if value.value is None or (text := take_text(value, problems)) is None or text in DEEPSPEED_WORDS:
            return value
        expected = f"{', '.join(DEEPSPEED_WORDS)}, or a JSON file"
        found = find_local(text, base=self.base_of(value))
        if found is None or not found.is_file():
            words = {Path(text).stem.replace("-", "_")} & set(DEEPSPEED_WORDS)
            hint = did_you_mean(text, DEEPSPEED_WORDS) or missing_hint(text, base=self.base_of(value))
            hint = f"deepspeed: {words.pop()} is in hpcbench" if words else hint
            problems.append(value.problem(f"no such file: {text[:200]!r}", expected=expected, hint=hint))
            return value
        try:
            read_deepspeed(str(found))
        except DeepSpeedFileError as error:
            problems.append(value.problem(error.message, expected=expected, hint=error.hint))
        return replace(value, value=str(found), raw=None)

    def localise_folders(self, value: Located, problems: list[Problem]) -> Located:
        """Return a list of folders that must exist, from a list or one text."""
        if value.value is None:
            return value
        parts = (value,) if value.items is None else value.items
        return replace(value, value=tuple(self.localise_folder(part, problems) for part in parts), raw=None)

    def localise_splits(self, value: Located, problems: list[Problem]) -> Located:
        """Return local data of an eval task as a mapping of splits to absolute patterns of files."""
        reader = LocalDataReader(
            base_of=self.base_of,
            explain_missing=lambda text, base: missing_hint(text, base=base),
            problems=problems,
            remarks=self.eval_tasks.remarks,
        )
        return reader.read(value)

    def has_model(self, value: Located) -> bool:
        """Return whether the value names a model folder that exists."""
        found = find_local(value.value, base=self.base_of(value)) if isinstance(value.value, str) else None
        return found is not None and is_model_folder(found)

    def _localise_dataset(self, value: Located, problems: list[Problem], *, registry: Path | None) -> Located:
        if (text := take_text(value, problems)) is None:
            return value
        try:
            if registry is not None and split_word(text).name in read_registry(registry):
                return value
        except WorkerError as error:
            problems.append(value.problem(error.message, hint=error.hint))
            return value
        found, rows = find_local(text, base=self.base_of(value)), ""
        if found is not None and split_word(str(found)).num_samples is not None:
            rows = ALL_ROWS  # the number is part of the file's name
        elif found is None and (word := split_word(text)).hub is None and not word.subsets:
            found = find_local(word.name, base=self.base_of(value))
            rows = text.removeprefix(word.name)
            text = word.name
        if found is None:
            problems += self._explain_missing(text, value)
            return value
        is_name = "/" not in text and not looks_local(text)
        if is_name and found.is_dir() and DATASETS.lookup(text) is not None and not holds_data(found):
            # Any folder may have the name of a dataset of the catalog.
            return value
        return replace(value, value=f"{found}{rows}", raw=None)

    def _explain_missing(self, text: str, value: Located) -> list[Problem]:
        """Return the problem of a dataset that is not a local file, if it can only be meant as one."""
        if looks_like_data(text):
            hint = missing_hint(text, base=self.base_of(value))
            return [value.problem(f"no such file: {text[:200]!r}", hint=hint)]
        return []

    def _localise_model(self, value: Located, problems: list[Problem]) -> Located:
        if value.value is None or (text := take_text(value, problems)) is None:
            return value
        base = self.base_of(value)
        found = find_local(text, base=base)
        if found is not None and is_model_folder(found):
            return replace(value, value=str(found), raw=None)
        if found is None and looks_local(text):
            problems.append(value.problem(f"no such folder: {text[:200]!r}", hint=missing_hint(text, base=base)))
        elif found is not None and ("/" in text or looks_local(text)):
            problems.append(_not_a_model(value, text, found))
        return value


def _not_a_model(value: Located, text: str, found: Path) -> Problem:
    """Return what is wrong with a path that is there and holds no whole model; adapters have a way on."""
    expected = "a model folder, or a hub id"
    if not any((found / name).is_file() for name in (PEFT_CONFIG, TUNER_CONFIG)):
        what = "a file" if found.is_file() else "a folder without config.json"
        return value.problem(f"{text[:200]!r} is {what}", expected=expected)
    message = f"{text[:200]!r} holds an adapter, which is nothing without its base model"
    hint = "merge it into its base (peft: merge_and_unload, then save_pretrained), and name that folder"
    if JobPaths(found.parents[1]).request.is_file():
        hint = f"hpcbench eval --ckpt_dir {shlex.quote(str(found))} --eval_dataset TASK evaluates it on its base"
    return value.problem(message, expected=expected, hint=hint)


def looks_local(text: str) -> bool:
    """Return whether the text can only be a path on this machine."""
    return text in {".", "..", "~"} or text.startswith(("./", "../", "/", "~/"))


def looks_like_data(text: str) -> bool:
    """Return whether the text is a path by its form or by a data file's suffix."""
    return looks_local(text) or data_suffix(Path(text)) in DATA_SUFFIXES


def find_local(text: str, *, base: Path) -> Path | None:
    """Return the absolute path of an existing file or folder, or None; relative paths start from `base`."""
    # os.path, since Path.exists raises on names that are too long or hold odd characters.
    joined = os.path.normpath(base / os.path.expanduser(text))  # noqa: PTH111
    if not text or not os.path.exists(joined):  # noqa: PTH110
        return None
    return Path(os.path.abspath(joined))  # noqa: PTH100


def missing_hint(text: str, *, base: Path) -> str:
    """Return a hint for a path that does not exist."""
    here = find_local(text, base=Path.cwd())
    if here is not None and base.resolve() != Path.cwd():
        return f"it exists as {here}; paths in a suite are relative to its folder, {base}"
    return f"looked for {os.path.normpath(base / os.path.expanduser(text))}"  # noqa: PTH111


def is_model_folder(path: Path) -> bool:
    """Return whether a folder holds what transformers loads a model by."""
    return (path / "config.json").is_file()
