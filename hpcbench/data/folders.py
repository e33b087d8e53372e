"""Which files of a folder hold a dataset: folders that datasets saved, and folders of data files.

In: a path and a split. Out: its files in their order. Rows are not read here. Splits are recognized by the names of
files and folders, as datasets does it (https://huggingface.co/docs/datasets/repository_structure).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from hpcbench.data.file_kinds import DATA_SUFFIXES, DataFile, data_suffix, recognize
from hpcbench.errors import DataError, name_first, plural

SAVED_SPLITS: Final = "dataset_dict.json"
SAVED_STATE: Final = "state.json"

_NOT_ROWS: Final = frozenset(
    {
        SAVED_SPLITS,
        SAVED_STATE,
        "config.json",
        "dataset_info.json",
        "dataset_infos.json",
        "generation_config.json",
        "license.txt",
        "readme.txt",
        "requirements.txt",
    }
)
SPLIT_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SHARD: Final = re.compile(r"(.+)-(\d{5})-of-(\d{5})")
_MOST_FILES: Final = 20_000
_MOST_LEVELS: Final = 4


def find_files(path: Path, *, split: str = "train") -> list[DataFile]:
    """Return the files that hold a split of the dataset at `path`, a file or folder.

    Raises:
        DataError: there is none, or what is there cannot be told to be one dataset.
        MissingLibraryError: a library that a file needs is not installed here.
    """
    if path.is_file():
        return [recognize(path)]
    if not path.is_dir():
        what = "is neither a file nor a folder" if os.path.lexists(path) else "no such dataset file or folder"
        raise DataError(f"{path}: {what}")
    try:
        if (path / SAVED_SPLITS).is_file():
            path = _choose_saved_split(path, split)
        if (path / SAVED_STATE).is_file():
            return _find_saved(path)
        return [recognize(file) for file in _find_plain(path, split)]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def holds_data(path: Path) -> bool:
    """Return whether a folder looks like a dataset: saved by datasets, or with data files in it."""
    try:
        return (path / SAVED_SPLITS).is_file() or (path / SAVED_STATE).is_file() or bool(list_data_files(path))
    except (OSError, DataError):
        return False


def _choose_saved_split(path: Path, split: str) -> Path:
    splits = _read_json(path / SAVED_SPLITS).get("splits")
    names = [str(name) for name in splits] if isinstance(splits, list) else []
    if split not in names:
        hint = f"name the folder of one of them: {path / names[0]}" if names else None
        raise DataError(f"{path}: no split `{split}`; found: {', '.join(names) or 'none'}", hint=hint)
    return path / split


def _find_saved(path: Path) -> list[DataFile]:
    """Return the files of a folder that Dataset.save_to_disk wrote."""
    state = _read_json(path / SAVED_STATE)
    entries = state.get("_data_files")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "filename" in entry for entry in entries):
        raise DataError(f"{path / SAVED_STATE}: not written by datasets (save_to_disk): it lists no data files")
    if state.get("_indices_data_files"):
        raise DataError(
            f"{path}: saved by an old version of datasets as a choice of rows (indices)",
            hint="load_from_disk(...).flatten_indices().save_to_disk(...) with that version writes the rows themselves",
        )
    columns = state.get("_format_columns")
    chosen = None if columns is None or state.get("_output_all_columns") else frozenset(map(str, columns))
    found = []
    for entry in entries:
        name = Path(str(entry["filename"])).name
        if not (path / name).is_file():
            raise DataError(f"{path}: its file {name} is missing")
        found.append(replace(recognize(path / name), columns=chosen))
    if not found:
        raise DataError(f"{path}: holds no rows")
    return found


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{file}: not a JSON object")
    return value


def _find_plain(path: Path, split: str) -> list[Path]:
    """Return the data files of a folder that nothing describes, in the order of their names."""
    files = list_data_files(path)
    if not files:
        raise DataError(
            f"{path}: a folder without data files", expected=f"files with one of {', '.join(sorted(DATA_SUFFIXES))}"
        )
    by_split = group_by_split(path, files)
    if by_split:
        rest = by_split.pop("", [])
        if split not in by_split:
            raise DataError(f"{path}: no split `{split}`; found: {', '.join(sorted(by_split))}", hint=_NAME_IT)
        if rest:
            names = name_first([str(file.relative_to(path)) for file in rest])
            raise DataError(f"{path}: files that belong to no split, beside some that do: {names}", hint=_NAME_IT)
        files = by_split[split]
    _check_shards(path, files)
    suffixes = sorted({data_suffix(file) for file in files})
    if len(suffixes) > 1:
        raise DataError(f"{path}: files of several kinds: {', '.join(suffixes)}", hint=_NAME_IT)
    folders = sorted({str(file.parent.relative_to(path)) for file in files})
    if len(folders) > 1:
        raise DataError(f"{path}: data files in several folders: {name_first(folders)}", hint=_NAME_IT)
    return files


def _check_shards(path: Path, files: Iterable[Path]) -> None:
    """Check that no shard of `train-00000-of-00003` and its like is missing, as after a download that ended early."""
    shards: dict[tuple[Path, str, str, int], set[int]] = {}
    for file in files:
        if match := _SHARD.match(file.name):
            name, index, total = match.groups()
            shards.setdefault((file.parent, name, data_suffix(file), int(total)), set()).add(int(index))
    for (folder, name, suffix, total), found in shards.items():
        start = 1 if total in found else 0  # some tools count from 1
        missing = [index for index in range(start, start + total) if index not in found]
        if missing:
            first = (folder / f"{name}-{missing[0]:05}-of-{total:05}{suffix}").relative_to(path)
            raise DataError(
                f"{path}: {len(missing)} of {plural(total, 'shard')} missing, the first is {first}",
                hint="download it again, or name the files that are to be read",
            )


_NAME_IT: Final = "name the file or folder itself; several can be a list"


def _raise(error: OSError) -> None:
    raise error


def list_data_files(path: Path) -> list[Path]:
    """Return the data files below a folder by their names: those that are neither hidden nor descriptions.

    Raises:
        DataError: the folder holds too many files to look through.
    """
    found = []
    num_files = 0
    for folder, folders, names in os.walk(path, onerror=_raise):
        level = len(Path(folder).relative_to(path).parts)
        folders[:] = sorted(
            name for name in folders if level < _MOST_LEVELS and not name.startswith((".", "__pycache__"))
        )
        num_files += len(names)
        if num_files > _MOST_FILES:
            raise DataError(f"{path}: more than {_MOST_FILES} files", hint="name the data files themselves")
        found += [
            Path(folder, name)
            for name in names
            if data_suffix(Path(name)) in DATA_SUFFIXES
            and name.lower() not in _NOT_ROWS
            and not name.startswith((".", "README", "LICENSE"))
        ]
    return sorted(found)


def group_by_split(path: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Return files by split, those of none under the empty name; empty where no name is one of a split.

    As in datasets, the first of these that any file follows is the rule: shards in `data/`, names of folders, of files.
    """
    rules = (_split_of_shard, _split_of_folders, _split_of_name)
    for rule in rules:
        found: dict[str, list[Path]] = {}
        for file in files:
            found.setdefault(rule(file.relative_to(path)) or "", []).append(file)
        if set(found) != {""}:
            return found
    return {}


def _split_of_shard(file: Path) -> str | None:
    shard = _SHARD.match(file.name)
    return shard.group(1) if shard is not None and file.parts[0] == "data" else None


def _split_of_folders(file: Path) -> str | None:
    return next((found for part in file.parts[:-1] if (found := _split_word([part])) is not None), None)


def _split_of_name(file: Path) -> str | None:
    return _split_word([file.name])


def _split_word(names: Iterable[str]) -> str | None:
    """Return the split that a name has as one of its words, in any case: `train` for `my-Train_2.jsonl`."""
    for name in names:
        words = set(re.split(r"[-._ 0-9]+", name.lower()))
        for split, known in SPLIT_WORDS.items():
            if words & set(known):
                return split
    return None
