"""Where ModelScope's client keeps what it downloaded, found by its files alone: jobs need no modelscope library.

In: a repository's id and the environment. Out: the folder of its files, or None. Nothing is written or downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from hpcbench.storage.package_data import home_folder

Kind = Literal["models", "datasets"]
_REVISIONS = ("master", "main")
_ID = re.compile(r"(?!\.)[\w.-]+/(?!\.)[\w.-]+")
"""Owner and name; nothing that would lead out of the cache."""


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder that MODELSCOPE_CACHE names, or the client's default."""
    named = environ.get("MODELSCOPE_CACHE")
    return Path(named).expanduser() if named else home_folder(environ) / ".cache" / "modelscope"


def find_repository(
    kind: Kind, repository: str, environ: Mapping[str, str], revision: str | None = None
) -> Path | None:
    """Return the folder with a repository's files, or None where the cache has none of them.

    A revision that is named is looked for where the cache keeps revisions apart, as the client does from 1.38 on.
    """
    if _ID.fullmatch(repository) is None:
        return None
    if revision is not None:
        snapshots = cache_folder(environ) / kind / repository.replace("/", "--") / "snapshots"
        folder = snapshots / revision.replace("/", "--")
        return folder if ".." not in revision and folder.is_dir() else None
    for folder in _candidates(cache_folder(environ), kind, repository):
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            return folder
    return None


def _candidates(root: Path, kind: Kind, repository: str) -> Iterator[Path]:
    owner, _, name = repository.partition("/")
    # modelscope 1.38 and later (modelscope_hub/_download.py), as Hugging Face's.
    snapshots = root / kind / f"{owner}--{name}" / "snapshots"
    yield from (snapshots / revision for revision in _REVISIONS)
    revisions = sorted(snapshots.iterdir()) if snapshots.is_dir() else []
    # Another revision only where there is no doubt which one.
    yield from revisions if len(revisions) == 1 else ()
    # Up to 1.37: below hub/ where MODELSCOPE_CACHE was not set, without kinds for models up to 1.17.
    for base in (root, root / "hub"):
        for spelled in (name.replace(".", "___"), name):
            yield base / kind / owner / spelled
            if kind == "models":
                yield base / owner / spelled
