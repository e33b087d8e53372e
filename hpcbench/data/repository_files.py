"""Which files of a dataset's repository hold the rows of a subset and a split.

In: the folder of a downloaded repository. Out: its data files, in order. It knows the three ways in which hubs say so:
ModelScope's own description (NAME.json), `configs` in README.md (Hugging Face's), and names of files and folders, with
Hugging Face's words for splits. Rows are read in `files.py`.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from hpcbench.data.file_kinds import DataFile, data_suffix, recognize
from hpcbench.data.folders import SPLIT_WORDS, group_by_split, list_data_files
from hpcbench.data.values import show
from hpcbench.errors import DataError, name_first

_DEFAULT: Final = "default"
_DESCRIPTION_BYTES: Final = 1 << 20


def find_split_files(folder: Path, *, subset: str | None, splits: Iterable[str]) -> list[DataFile]:
    """Return the data files of a subset's splits.

    Raises:
        DataError: there are none; the message says what is there.
    """
    found: list[Path] = []
    for split in splits:
        files = _described(folder, subset, split) or _configured(folder, subset, split) or _named(folder, subset, split)
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise DataError(f"{missing[0]}: no such file, and the description of the dataset names it")
        if not files:
            raise DataError(_nothing(folder, subset, split), hint="download it and name its data files themselves")
        found += files
    return [recognize(file) for file in dict.fromkeys(found)]


def _nothing(folder: Path, subset: str | None, split: str) -> str:
    what = f"split {split!r}" + (f" of subset {subset!r}" if subset is not None else "")
    data = [path.relative_to(folder).as_posix() for path in _data_files(folder)]
    if data:
        return f"{folder}: no files of {what}; its data files: {name_first(data)}"
    if any(folder.glob("*.py")):
        return f"{folder}: its rows are made by Python code of the dataset, which hpcbench does not run"
    return f"{folder}: no data files of {what}"


def _described(folder: Path, subset: str | None, split: str) -> list[Path]:
    """Return the file that ModelScope's description names: {subset: {split: {"meta": file, "file": archive}}}."""
    for file in sorted(folder.glob("*.json")):
        description = _read_description(file)
        chosen = description.get(subset or _DEFAULT)
        if chosen is None and subset is None and len(description) == 1:
            (chosen,) = description.values()
        entry = (chosen or {}).get(split) or _of_same_split(chosen or {}, split)
        if entry:
            return [_find_inside(folder, str(entry["meta"]), named_by=file)]
    return []


def _find_inside(folder: Path, name: str, *, named_by: Path) -> Path:
    """Return what a description names, which may not lead out of the folder."""
    # Not resolved: the files of a hub's cache are links to where it keeps them.
    path = Path(os.path.normpath(folder / name))
    if not path.is_relative_to(os.path.normpath(folder)):
        raise DataError(f"{named_by}: names {show(name)}, which is outside of the dataset's folder")
    return path


def _read_description(file: Path) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    if file.stat().st_size > _DESCRIPTION_BYTES:
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    subsets = value.values() if isinstance(value, dict) else []
    is_description = bool(subsets) and all(
        isinstance(splits, dict) and splits and all(isinstance(e, dict) and e.get("meta") for e in splits.values())
        for splits in subsets
    )
    return value if is_description else {}


def _of_same_split(splits: Mapping[str, Mapping[str, Any]], split: str) -> Mapping[str, Any] | None:
    return next((entry for name, entry in splits.items() if _split_name(name) == _split_name(split)), None)


def _split_name(word: str) -> str:
    """Return the name of the split that a word stands for: `validation` for `val`."""
    return next((split for split, words in SPLIT_WORDS.items() if word in words), word)


def _configured(folder: Path, subset: str | None, split: str) -> list[Path]:
    """Return the files that `configs` in the head of README.md gives a subset's split."""
    for config in _read_configs(folder / "README.md"):
        if config.get("config_name", _DEFAULT) == (subset or _DEFAULT) or (subset is None and config.get("default")):
            base = folder / str(config.get("data_dir") or "")
            patterns = list(_patterns(config.get("data_files"), split))
            return [file for file in _data_files(base) if _matches(file.relative_to(base), patterns)]
    return []


def _read_configs(readme: Path) -> list[Mapping[str, Any]]:
    try:
        text = readme.read_text(encoding="utf-8-sig")
        head = yaml.safe_load(text.split("\n---", 1)[0].removeprefix("---")) if text.startswith("---") else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return []
    configs = head.get("configs") if isinstance(head, dict) else None
    return [config for config in configs if isinstance(config, dict)] if isinstance(configs, list) else []


def _patterns(value: object, split: str) -> Iterator[str]:
    """Yield the patterns of one split; a text or a list of texts is the training split's."""
    if isinstance(value, str):
        yield from [value] if _split_name(split) == "train" else []
        return
    for item in value if isinstance(value, list) else []:
        if isinstance(item, str):
            yield from _patterns(item, split)
        elif isinstance(item, dict) and item.get("split") == split:
            paths = item.get("path")
            yield from (
                [paths]
                if isinstance(paths, str)
                else [str(path) for path in (paths if isinstance(paths, list) else [])]
            )


def _matches(path: Path, patterns: Iterable[str]) -> bool:
    spelled = [pattern.removeprefix("./") for pattern in patterns]
    # `**/` stands for no folder too, which fnmatch does not know.
    return any(
        fnmatch.fnmatch(path.as_posix(), text) for pattern in spelled for text in (pattern, pattern.replace("**/", ""))
    )


def _named(folder: Path, subset: str | None, split: str) -> list[Path]:
    """Return the files whose names or folders say a subset and a split; without any split's name all are training."""
    files = _data_files(folder)
    if subset is not None:
        inside = [file for file in files if subset in file.relative_to(folder).parts[:-1]]
        files = inside or [file for file in files if _holds(_words(file.stem), _words(subset))]
    by_split = group_by_split(folder, files)
    if not by_split:
        return files if split == "train" else []
    return by_split.get(_split_name(split), [])


def _words(text: str) -> list[str]:
    return re.split(r"[^A-Za-z0-9]+", text.lower())


def _holds(words: list[str], part: list[str]) -> bool:
    return any(words[start : start + len(part)] == part for start in range(len(words)))


def _data_files(folder: Path) -> list[Path]:
    """Return the data files of a repository: no descriptions, and no text files beside others, which are notes."""
    files = [file for file in list_data_files(folder) if file.suffix != ".json" or not _read_description(file)]
    return [file for file in files if data_suffix(file) != ".txt"] or files
