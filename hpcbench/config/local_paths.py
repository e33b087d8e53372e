"""Local files and folders that a suite names.

In: text as written, and the folder that it is relative to. Out: an absolute path, or None for what is no path (a hub
id, a name of the catalog). It looks whether things exist; it reads nothing and never raises on a strange name.
"""

from __future__ import annotations

import os
from pathlib import Path

from hpcbench.config.dataset_probe import DATA_SUFFIXES


def looks_local(text: str) -> bool:
    """Say whether the text can only be meant as a path on this machine."""
    return text in {".", "..", "~"} or text.startswith(("./", "../", "/", "~/"))


def looks_like_data(text: str) -> bool:
    """Say whether the text is a path by its form or by a data file's suffix."""
    return looks_local(text) or Path(text).suffix.lower() in DATA_SUFFIXES


def find_local(text: str, *, base: Path) -> Path | None:
    """Return the absolute path of an existing file or folder, or None.

    Args:
        text: path as written; `~` is the home folder.
        base: folder that relative paths start from.
    """
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
    """Say whether a folder holds what transformers loads a model by."""
    return (path / "config.json").is_file()
