"""The push of a finished model: `python -m hpcbench.worker.hub_push JOB_FOLDER FOLDER RESULT`.

In: `job.json`, a folder that is ready to be pushed, the user's login. Out: RESULT with the repository's `url`, or with
an `error` in one line. Only the hub's library talks to the network; tokens are read by it and never written by us.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, Final

from hpcbench.errors import HpcbenchError, WorkerError
from hpcbench.hub.repository import TOKEN_VARIABLES, repository_of
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.notes import Push
from hpcbench.schemas.request import read_request
from hpcbench.storage.paths import PEFT_CONFIG, TUNER_CONFIG, JobPaths

MESSAGE: Final = "Weights trained by hpcbench"
_REPLACED: Final = ("*.safetensors", "*.safetensors.index.json", PEFT_CONFIG, TUNER_CONFIG)
"""Files of an earlier push that would not fit to this one's; whatever else is in the repository stays."""
_PRIVATE, _PUBLIC = 1, 5
"""ModelScope's ModelVisibility."""


def check_hub(args: SftArgs) -> None:
    """Raise before a training whose push cannot work for want of a package.

    Raises:
        WorkerError: the package is missing.
    """
    if args.push_to_hub and args.hub == "modelscope" and importlib.util.find_spec("modelscope") is None:
        raise WorkerError(
            "hub: modelscope needs the package modelscope, which is not installed",
            hint="pip install 'hpcbench-llm[modelscope]', or set hub: huggingface",
        )


def push(args: SftArgs, folder: Path) -> str:
    """Push the folder and return the repository's address; errors are those of the hub's library."""
    return _push_modelscope(args, folder) if args.hub == "modelscope" else _push_huggingface(args, folder)


def _push_huggingface(args: SftArgs, folder: Path) -> str:
    from huggingface_hub import HfApi

    api = HfApi(library_name="hpcbench")
    # A push that is repeated finds its repository already there.
    repository = api.create_repo(repository_of(args), private=args.hub_private_repo, exist_ok=True)
    api.upload_folder(
        repo_id=repository.repo_id,
        folder_path=str(folder),
        commit_message=MESSAGE,
        delete_patterns=list(_REPLACED),
    )
    return str(repository)


def _push_modelscope(args: SftArgs, folder: Path) -> str:
    check_hub(args)
    from modelscope.hub.api import HubApi, ModelScopeConfig

    api: Any = HubApi()
    token = os.environ.get("MODELSCOPE_API_TOKEN")
    if token:
        api.login(token)
    repository = repository_of(args)
    if "/" not in repository:
        owner, _ = ModelScopeConfig.get_user_info()
        if owner is None:
            raise WorkerError("not logged in to ModelScope: set MODELSCOPE_API_TOKEN, or run `modelscope login`")
        repository = f"{owner}/{repository}"
    if not api.repo_exists(repository):
        api.create_model(repository, visibility=_PRIVATE if args.hub_private_repo else _PUBLIC)
    api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message=MESSAGE)
    return f"https://modelscope.cn/models/{repository}"


def describe_error(error: Exception) -> str:
    """Return an error in one line, without any token that is in the environment."""
    text = error.message if isinstance(error, HpcbenchError) else f"{type(error).__name__}: {error}"
    for name in TOKEN_VARIABLES:
        if os.environ.get(name):
            text = text.replace(os.environ[name], f"${name}")
    return " ".join(text.split())[:500]


def _read_args(job: Path) -> SftArgs:
    args = read_request(JobPaths(job).request).args
    if args is None:
        raise WorkerError(f"{job}: not a training job")
    return args


def main(argv: list[str]) -> int:
    """Push one folder; return the exit code."""
    job, folder, result = Path(argv[0]), Path(argv[1]), Path(argv[2])
    try:
        note = Push(url=push(_read_args(job), folder))
    except Exception as error:  # noqa: BLE001  # whatever a hub's library raises is reported, and the training stays
        note = Push(error=describe_error(error))
        sys.stderr.write(f"{note.error}\n")
    note.write(result)
    return 1 if note.url is None else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
