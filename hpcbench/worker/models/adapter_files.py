"""Files of tuners beside or instead of the model's: adapters that neither peft nor transformers can save.

In: a prepared model and its method. Out: a folder with `tuner.json` (method and arguments) and `tuner.safetensors` (the
trained weights), from which the adapter is rebuilt on its base. The base's weights are never in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import TUNER_CONFIG
from hpcbench.worker.tuners import load_tuner

TUNER_WEIGHTS: Final = "tuner.safetensors"


def save_adapter(model: Any, args: SftArgs, folder: Path) -> None:
    """Write the trained weights and what rebuilds their modules."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    names = load_tuner(args.tuner).saved_arguments
    values = args.model_dump(mode="json", include=set(names))
    save_file(_trained(model), folder / TUNER_WEIGHTS)
    write_json(folder / TUNER_CONFIG, {"schema_version": 1, "tuner": args.tuner, "arguments": values})


def load_adapter_weights(model: Any, folder: Path) -> None:
    """Put saved weights into a model that is prepared already.

    Raises:
        WorkerError: they are not there, or belong to another model.
    """
    from safetensors.torch import load_file

    try:
        found = load_file(folder / TUNER_WEIGHTS)
    except (OSError, ValueError) as error:
        raise WorkerError(f"{folder}: adapter cannot be loaded: {error}") from error
    expected = {name: tensor.shape for name, tensor in _trained(model).items()}
    if expected != {name: tensor.shape for name, tensor in found.items()}:
        raise WorkerError(
            f"{folder}: its weights do not belong to this model", hint="load it on the base it was made of"
        )
    model.load_state_dict(found, strict=False)


def has_adapter(folder: Path) -> bool:
    """Return whether the folder is one that `save_adapter` wrote."""
    return (folder / TUNER_CONFIG).is_file()


def rebuild_adapter(base: Any, args: SftArgs, folder: Path) -> Any:
    """Return the base with the folder's adapter on it.

    Raises:
        WorkerError: the folder is damaged or belongs to another base.
    """
    config = read_json(folder / TUNER_CONFIG)
    if config is None or not isinstance(config.get("arguments"), dict):
        raise WorkerError(f"{folder / TUNER_CONFIG}: not readable")
    tuner = load_tuner(str(config.get("tuner")))
    model = tuner.prepare(base, args.model_copy(update=config["arguments"]))
    load_adapter_weights(model, folder)
    return model


def _trained(model: Any) -> dict[str, Any]:
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
