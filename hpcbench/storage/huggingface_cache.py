"""Find a model of the Hugging Face hub in the local cache, as transformers does, by folders alone.

In: a repository's id and the environment that names the cache. Out: the folder of its files, or None.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the cache of models and data sets (huggingface_hub/constants.py)."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            return Path(environ[name]).expanduser()
    if environ.get("HF_HOME"):
        return Path(environ["HF_HOME"]).expanduser() / "hub"
    cache = Path(environ["XDG_CACHE_HOME"]) if environ.get("XDG_CACHE_HOME") else Path("~/.cache")
    return cache.expanduser() / "huggingface" / "hub"


def find_snapshot(model: str, environ: Mapping[str, str]) -> Path | None:
    """Return the folder with the files of a model's main branch, None where the cache has none with a config.json."""
    repository = cache_folder(environ) / f"models--{model.replace('/', '--')}"
    try:
        revision = (repository / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    folder = repository / "snapshots" / revision
    return folder if revision and (folder / "config.json").is_file() else None
