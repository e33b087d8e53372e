"""The arguments of a training: all its groups in one flat class, and what they exclude between groups."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Self

from pydantic import model_validator

from hpcbench.schemas.arguments.base import Arguments
from hpcbench.schemas.arguments.data import DataArgs
from hpcbench.schemas.arguments.hub import HubArgs
from hpcbench.schemas.arguments.images import ImageArgs
from hpcbench.schemas.arguments.model import ModelArgs
from hpcbench.schemas.arguments.parallel import ParallelArgs
from hpcbench.schemas.arguments.preference import WITH_REFERENCE, PreferenceArgs
from hpcbench.schemas.arguments.speed import SpeedArgs
from hpcbench.schemas.arguments.training import TrainingArgs
from hpcbench.schemas.arguments.tuner import TunerArgs
from hpcbench.schemas.tuners import BASE_DTYPE_METHODS

GROUPS: Final[Mapping[str, type[Arguments]]] = {
    "Model": ModelArgs,
    "Data": DataArgs,
    "Training": TrainingArgs,
    "Speed": SpeedArgs,
    "Parallelism": ParallelArgs,
    "Hub": HubArgs,
    "Tuner": TunerArgs,
    "Images": ImageArgs,
    "Preference": PreferenceArgs,
}
"""Title -> its arguments, in the order of help, JSON Schema and reference."""
QUANTIZABLE: Final = ("lora", "adalora", "ia3")
"""Values of `sft_type` that leave the base frozen in linear layers, which quantization_bit needs."""


# pydantic collects fields from the last base to the first: the first group stands last.
class SftArgs(
    PreferenceArgs, ImageArgs, TunerArgs, HubArgs, ParallelArgs, SpeedArgs, TrainingArgs, DataArgs, ModelArgs
):
    """Arguments of `sft`, by ms-swift's names; evals use the model, template and length part of them."""

    @classmethod
    def groups(cls) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return each group's title and the names of its arguments, both in the order of help and reference."""
        return tuple((title, tuple(group.model_fields)) for title, group in GROUPS.items())

    @model_validator(mode="after")
    def _groups_fit_together(self) -> Self:
        contradiction = (
            self._find_in_galore()
            or self._find_in_quantization()
            or self._find_in_lora()
            or self._find_in_virtual_tokens()
            or self._find_in_rows()
            or self._find_in_preferences()
        )
        if contradiction is not None:
            raise ValueError(contradiction)
        return self

    def _find_in_galore(self) -> str | None:
        if self.use_galore and self.optim not in {"adamw_torch", "adamw_torch_fused"}:
            return f"use_galore has an AdamW of its own and cannot use optim {self.optim}"
        return None

    def _find_in_quantization(self) -> str | None:
        if self.quantization_bit and not self.takes_quantized:
            return (
                f"quantization_bit freezes the base and cannot go with sft_type {self.sft_type}: "
                f"take {', '.join(QUANTIZABLE)}, or quantization_bit: 0"
            )
        if self.quantization_bit and self.init_lora_weights.startswith(("pissa", "olora")):
            return f"init_lora_weights {self.init_lora_weights} needs the base's weights: set quantization_bit: 0"
        if self.quantization_bit and self.lora_bias_trainable != "none":
            return "quantised layers keep their biases frozen: lora_bias_trainable: none, or quantization_bit: 0"
        if self.quant_method == "bnb" and not self.quantization_bit:
            return "quant_method bnb quantises while loading: set quantization_bit: 4 or 8"
        if self.quant_method not in {None, "bnb"} and self.quantization_bit:
            return f"quant_method {self.quant_method} is how a model's folder holds its weights: quantization_bit: 0"
        return None

    def _find_in_lora(self) -> str | None:
        trained = [name for name in ("lora_bias_trainable", "lora_modules_to_save") if self.differs_from_default(name)]
        if trained and self.dtype == "fp16":
            # The scaler of fp16 needs fp32 weights, and these have the base's dtype.
            return f"{trained[0]} trains weights in the base's dtype, which fp16 cannot be: set dtype: bf16 or fp32"
        if self.sft_type in BASE_DTYPE_METHODS and self.dtype == "fp16":
            return f"sft_type {self.sft_type} trains weights in the base's dtype: set dtype: bf16 or fp32, not fp16"
        return None

    def _find_in_virtual_tokens(self) -> str | None:
        """Return what cannot go with tokens that stand before each sample."""
        if not self.adds_tokens:
            return None
        if self.rlhf_type is not None:
            return f"the virtual tokens of sft_type {self.sft_type} cannot be trained from preferences: take lora"
        for name in ("packing", "use_loss_scale"):
            if getattr(self, name):
                return f"{name} cannot go with the virtual tokens of sft_type {self.sft_type}: set {name}: false"
        if self.gradient_checkpointing and self.sft_type in {"prefix_tuning", "cartridge"}:
            return (
                f"gradient_checkpointing drops the cache that sft_type {self.sft_type} keeps its tokens in: "
                "set gradient_checkpointing: false"
            )
        return None

    def _find_in_rows(self) -> str | None:
        if self.truncation_strategy == "split" and not self.plain_text:
            return "truncation_strategy split cuts answers from their questions: it is for `cmd: pt`"
        if self.truncation_strategy == "split" and self.lazy_tokenize:
            return "lazy_tokenize: how many pieces split makes of a text is not known before training"
        chats = [name for name in ("use_loss_scale", "loss_on_all_rounds") if getattr(self, name)]
        if self.plain_text and chats:
            return f"{chats[0]} is for dialogues: a text as it is has none"
        return None

    def _find_in_preferences(self) -> str | None:
        """Return what cannot go with a loss on preferences."""
        if self.rlhf_type is None:
            return None
        kind = self.rlhf_type
        for name in ("packing", "use_loss_scale", "loss_on_all_rounds", "loss_on_prompt", "plain_text"):
            if getattr(self, name):
                return f"{name} cannot go with rlhf_type {kind}, whose loss takes whole answers one by one"
        # TRL multiplies hidden states by the head's weight itself, so an adapter of it would never be trained.
        has_head = "lm_head" in (*self.lora_target_modules, *self.lora_modules_to_save)
        has_head |= self.target_regex is not None and re.fullmatch(self.target_regex, "lm_head") is not None
        contradictions = {
            "tuner_backend unsloth trains by answers alone: take tuner_backend peft": self.tuner_backend == "unsloth",
            "neftune_noise_alpha would give the reference other noise: leave it out": bool(self.neftune_noise_alpha),
            "kto compares the answers of a batch with each other: set batch_size and eval_batch_size to 2 or more": (
                self.estimates_kl and 1 in {self.batch_size, self.eval_batch_size}
            ),
            f"{kind} computes the head by itself, and would not train an adapter of it: leave lm_head out": (
                has_head and kind in WITH_REFERENCE
            ),
        }
        return next((f"rlhf_type {kind}: {text}" for text, holds in contradictions.items() if holds), None)

    @property
    def reference(self) -> SftArgs | None:
        """Arguments of the reference model that these name, or None where it is the model as it is at the start."""
        if self.ref_model_id_or_path is None and self.ref_model_type is None:
            return None
        names = {"model_id_or_path": self.ref_model_id_or_path, "model_type": self.ref_model_type}
        return self.model_copy(update=names)

    @property
    def effective_learning_rate(self) -> float:
        """Learning rate with ms-swift's defaults filled in."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 2e-5 if self.sft_type == "full" else 1e-4
