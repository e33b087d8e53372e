"""AdaLoRA (arXiv:2303.10512) by peft: LoRA as an SVD whose ranks shrink during training, where they matter least.

In: the base model, the adalora_* arguments, lora_alpha, lora_dropout_p, lora_target_modules. Out: a peft model, and a
callback that shrinks its ranks. Pruned directions keep their vectors and may come back, so the whole adapter is saved,
and with it, for a resume, the importance that weights have gathered.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.paths import TUNER_STATE
from hpcbench.worker.tuners import Tuner
from hpcbench.worker.tuners.lora import add_adapter

_AVERAGES: Final = ("exp_avg_ipt", "exp_avg_unc")
"""What peft's allocator keeps of each weight from step to step."""


def prepare(model: Any, args: SftArgs) -> Any:
    """Return the model with an AdaLoRA adapter of rank adalora_init_r.

    Raises:
        WorkerError: the model has no modules of the names asked for.
    """
    from peft import AdaLoraConfig

    return add_adapter(
        model,
        args,
        AdaLoraConfig,
        target_r=args.adalora_target_r,
        init_r=args.adalora_init_r,
        tinit=args.adalora_tinit,
        tfinal=args.adalora_tfinal,
        deltaT=args.adalora_deltaT,
        beta1=args.adalora_beta1,
        beta2=args.adalora_beta2,
        orth_reg_weight=args.adalora_orth_reg_weight,
        # peft requires one; the callback sets the true number before the first step.
        total_step=args.adalora_tinit + args.adalora_tfinal + 1,
    )


class AdaLoraCallback(TrainerCallback):
    """Shrinks the ranks after each optimizer step."""

    def __init__(self, model: Any, args: SftArgs, resume_from: Path | None) -> None:
        self._model = model
        self._args = args
        self._config = model.peft_config[model.active_adapter]
        self._allocator = model.base_model.rankallocator
        self._rank_pattern: dict[str, list[bool]] | None = None
        if resume_from is not None:
            self._load(resume_from / TUNER_STATE)

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Pass peft the number of steps, and count the orthogonality term once per step."""
        num_steps = state.max_steps - self._args.adalora_tfinal - self._args.adalora_tinit
        if num_steps < 2:
            raise WorkerError(
                f"adalora_tinit {self._args.adalora_tinit} and adalora_tfinal {self._args.adalora_tfinal} "
                f"leave {max(0, num_steps)} of {state.max_steps} steps to shrink ranks in; it needs 2"
            )
        self._config.total_step = state.max_steps
        # peft adds the term to the loss of every micro-batch of every rank, and the Trainer sums those.
        parts = args.gradient_accumulation_steps * args.world_size
        self._config.orth_reg_weight = self._args.adalora_orth_reg_weight / parts

    @override
    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Update the weights' importance from their gradients, and mask the least important singular values."""
        # peft leaves this call to the training loop, and the Trainer does not make it.
        self._config.rank_pattern = self._rank_pattern
        self._model.base_model.update_and_allocate(state.global_step + 1)
        # With a pattern in its config peft saves the kept rows alone: not enough to resume from.
        self._rank_pattern, self._config.rank_pattern = self._config.rank_pattern, None

    @override
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the importance of weights into the new checkpoint."""
        from safetensors.torch import save_file

        if state.is_world_process_zero:
            tensors = {
                f"{kind}/{name}": tensor.contiguous()
                for kind in _AVERAGES
                for name, tensor in getattr(self._allocator, kind).items()
            }
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            save_file(tensors, folder / TUNER_STATE, metadata={"rank_pattern": json.dumps(self._rank_pattern)})

    def _load(self, path: Path) -> None:
        from safetensors import safe_open

        try:
            with safe_open(path, framework="pt") as found:
                self._rank_pattern = json.loads((found.metadata() or {})["rank_pattern"])
                tensors = {key: found.get_tensor(key) for key in found.keys()}  # noqa: SIM118  # no mapping
        except (OSError, KeyError, ValueError) as error:
            raise WorkerError(f"{path}: the state of adalora cannot be loaded: {error}") from error
        devices = {name: parameter.device for name, parameter in self._model.base_model.model.named_parameters()}
        for key, tensor in tensors.items():
            kind, _, name = key.partition("/")
            getattr(self._allocator, kind)[name] = tensor.to(devices[name])
            # Its last value is never used again, only that there is one.
            self._allocator.ipt[name] = torch.empty(0)


TUNER: Final = Tuner(
    prepare=prepare,
    make_callbacks=lambda model, args, resume_from: [AdaLoraCallback(model, args, resume_from)],
    notes={"train_loss": "includes adalora's orthogonality term; eval_loss does not"},
)
