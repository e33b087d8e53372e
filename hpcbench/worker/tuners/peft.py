"""Every method of peft that needs no more than its configuration: the method is `sft_type`, its fields `peft_config`.

In: the base model, the fields, the modules that lora_target_modules or target_regex name. Out: a peft model whose
adapter alone is trained. What each method is stands in peft's documentation; its fields and what plan knows of it in
`hpcbench/catalog/peft_methods.json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from hpcbench.catalog.peft_methods import peft_methods
from hpcbench.errors import WorkerError, first_line
from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.paths import TUNER_STATE
from hpcbench.worker.tuners import Tuner
from hpcbench.worker.tuners.lora import check_saved_modules, choose_targets


def prepare(model: Any, args: SftArgs) -> Any:
    """Return the model with the method's adapter.

    Raises:
        WorkerError: peft cannot make it: the fields do not fit the model, or it lacks the modules asked for.
    """
    import peft

    check_saved_modules(model, args)
    options = dict(args.peft_config)
    if args.takes_targets:
        options["target_modules"] = choose_targets(model, args)
    if args.lora_modules_to_save:
        options["modules_to_save"] = list(args.lora_modules_to_save)
    config_type = getattr(peft, peft_methods()[args.sft_type].config)
    try:
        tuned = peft.get_peft_model(model, config_type(task_type="CAUSAL_LM", **options))
    # Each configuration and each layer checks its numbers against the other's in its own way.
    except (ValueError, TypeError, NotImplementedError, RuntimeError, AssertionError, KeyError) as error:
        raise WorkerError(
            f"sft_type {args.sft_type}: peft cannot make it on this model: {first_line(error)}",
            hint=f"its fields, set in peft_config: {', '.join(sorted(peft_methods()[args.sft_type].fields))}",
        ) from error
    _check_butterflies(tuned, args)
    return tuned


def _check_butterflies(model: Any, args: SftArgs) -> None:
    # Without its CUDA extension, which it compiles when it is first used, peft takes one factor and says nothing.
    asked = args.peft_config.get("boft_n_butterfly_factor", 1)
    if asked > 1 and not all(getattr(module, "fbd_cuda_available", True) for module in model.modules()):
        raise WorkerError(
            f"boft_n_butterfly_factor: {asked} needs peft's CUDA extension, which could not be compiled here",
            hint="set boft_n_butterfly_factor: 1, or load a CUDA compiler (nvcc, CUDA_HOME) and ninja in the job",
        )


class PromptCallback(TrainerCallback):
    """Keeps what makes the virtual tokens: peft saves the tokens that come of it, from which no training can go on."""

    def __init__(self, model: Any, resume_from: Path | None) -> None:
        self._encoder = model.prompt_encoder
        self._resume_from = resume_from

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the saved weights over."""
        from safetensors.torch import load_file

        if self._resume_from is None:
            return
        path = self._resume_from / TUNER_STATE
        try:
            self._encoder.load_state_dict(load_file(path))
        except (OSError, ValueError, RuntimeError) as error:
            raise WorkerError(
                f"{path}: the virtual tokens' encoder cannot be loaded: {first_line(error)}",
                hint="name a checkpoint that was kept with only_save_model: false",
            ) from error

    @override
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the weights into the new checkpoint."""
        from safetensors.torch import save_file

        if state.is_world_process_zero:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            tensors = {name: tensor.detach().contiguous() for name, tensor in self._encoder.state_dict().items()}
            save_file(tensors, folder / TUNER_STATE)


def make_callbacks(model: Any, args: SftArgs, resume_from: Path | None) -> list[Any]:
    """Return what keeps the encoder of virtual tokens, of methods that have them."""
    if not args.adds_tokens:
        return []
    if resume_from is None and args.resume_only_model:
        # peft would take what came of the encoder for the encoder's own weights.
        resume_from = Path(str(args.resume_from_checkpoint))
    return [PromptCallback(model, resume_from)]


TUNER: Final = Tuner(prepare=prepare, make_callbacks=make_callbacks)
