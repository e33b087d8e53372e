"""Repositories on model hubs: their names, the variables of their tokens, and the command that fills one by hand.

In: training arguments. Out: names and text. Pure; no network and no hub's library.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

from hpcbench.schemas.arguments import SftArgs

HUB_ARGUMENTS: Final = frozenset({"push_to_hub", "hub", "hub_model_id", "hub_private_repo", "push_hub_strategy"})
TOKEN_VARIABLES: Final = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN"})
"""Variables that hold a hub's token; never written by hpcbench."""

MAX_LENGTH: Final = 96
REPOSITORY_RULE: Final = (
    f"`name` or `owner/name`, each of letters, digits, `-`, `_`, `.`, without `--`, `..`, a `-` or `.` at an end, "
    f"or `.git`; {MAX_LENGTH} characters at most"
)
"""The rule of huggingface_hub's validate_repo_id; ModelScope's names are among these."""

_PART = re.compile(r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)


def repository_of(args: SftArgs) -> str:
    """Return hub_model_id, else ms-swift's default, model_type-sft_type, in characters that hubs accept."""
    if args.hub_model_id is not None:
        return args.hub_model_id
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{args.model_name}-{args.sft_type}")
    # The end of a long name is kept, since it holds the method.
    return re.sub(r"-{2,}", "-", re.sub(r"\.{2,}", ".", name))[-MAX_LENGTH:].strip("-.")


def repository_error(name: str) -> str | None:
    """Return what is wrong with a repository's name, or None."""
    parts = name.split("/")
    if len(parts) > 2 or not all(_PART.fullmatch(part) for part in parts):  # noqa: PLR2004  # owner and name
        return f"{name[:120]!r} is not the name of a repository"
    if len(name) > MAX_LENGTH:
        return f"{name[:40]!r}... has {len(name)} characters"
    if "--" in name or ".." in name or name.endswith(".git"):
        return f"{name!r} is not the name of a repository"
    return None


def command_by_hand(args: SftArgs, folder: Path) -> str:
    """Return the command line that pushes a folder where there is a network."""
    repository = repository_of(args)
    if args.hub == "modelscope":
        owned = repository if "/" in repository else f"OWNER/{repository}"
        return shlex.join(["modelscope", "upload", owned, str(folder)])
    private = ["--private"] if args.hub_private_repo else []
    # "." is the path inside the repository.
    return shlex.join(["hf", "upload", repository, str(folder), ".", *private])
