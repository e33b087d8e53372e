"""Find a model of the Hugging Face hub in the local cache, as transformers does, by folders alone.

In: a repository's id and the environment that names the cache. Out: the folder of its files, or None.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from hpcbench.storage.package_data import home_folder

_COMMIT = re.compile(r"[0-9a-f]{40}")


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the cache of models and data sets (huggingface_hub/constants.py)."""
    cache = environ.get("XDG_CACHE_HOME") or home_folder(environ) / ".cache"
    home = environ.get("HF_HOME") or Path(cache, "huggingface")
    named = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or Path(home, "hub")
    return Path(os.path.expanduser(named))  # noqa: PTH111  # Path.expanduser raises where no home is known


def find_snapshot(model: str, environ: Mapping[str, str], revision: str | None = None) -> Path | None:
    """Return the folder with the files of a model's revision, None where the cache has none with a config.json.

    The revision is a branch, a tag or a whole commit; None is the main branch.
    """
    repository = cache_folder(environ) / f"models--{model.replace('/', '--')}"
    named = revision or "main"
    if _COMMIT.fullmatch(named):
        commit = named
    elif ".." in named:  # a branch is a path below refs, and must stay there
        return None
    else:
        try:
            commit = (repository / "refs" / named).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
    folder = repository / "snapshots" / commit
    return folder if commit and (folder / "config.json").is_file() else None
