"""The arguments of `cmd: export`: an adapter merged into its base, weights of fewer bits.

In: plain values from a suite or a command line. Out: a frozen group. Model, template, calibration dataset and dtype are
the experiment's usual arguments, in `SftArgs`; what a model's files say against an export is `model_files`' business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from hpcbench.schemas.arguments.base import Arguments, PositiveInt, ReadsInteger

QuantMethod = Literal["awq", "gptq", "bnb"]
BITS: Final[Mapping[QuantMethod, tuple[int, ...]]] = {"awq": (4,), "gptq": (2, 3, 4, 8), "bnb": (4, 8)}
"""Bits per weight that each method writes."""
_SHARD_SIZE: Final = re.compile(r"[1-9]\d*(MB|GB|MiB|GiB)")


def _check_shard_size(value: str) -> str:
    if _SHARD_SIZE.fullmatch(value) is None:
        raise ValueError("give a whole number with MB, GB, MiB or GiB, for example 5GB")
    return value


class ExportArgs(Arguments):
    """What `cmd: export` makes of a model."""

    ckpt_from: str | None = None
    """Experiment of the same suite whose training is exported, once it is done."""
    ckpt_dir: str | None = None
    """Checkpoint folder to export: an adapter or a whole model; None is ckpt_from's, or the model itself."""
    checkpoint: Literal["best", "last"] | None = None
    """Which checkpoint of ckpt_from; None is best where there is a validation split, else last."""
    merge_lora: bool | None = None
    """Merge the adapter into its base; None merges where the checkpoint is an adapter. Alias: merge_lora_and_save."""
    quant_bits: Annotated[Literal[0, 2, 3, 4, 8], ReadsInteger] = 0
    """Bits per weight of the linear layers; 0 changes none. awq has 4, gptq 2, 3, 4 and 8, bnb 4 and 8."""
    quant_method: QuantMethod = "awq"
    """awq (arXiv:2306.00978) and gptq (2210.17323) calibrate on `dataset`, bnb rounds without data; with quant_bits."""
    quant_n_samples: PositiveInt = 256
    """Rows of `dataset` to calibrate on."""
    quant_seqlen: PositiveInt = 2048
    """Longest of these rows in tokens; longer ones keep their last tokens."""
    quant_batch_size: PositiveInt = 1
    """Rows per forward pass of the calibration."""
    quant_device_map: Literal["cpu", "auto"] = "cpu"
    """Where weights wait for their turn: in host memory (cpu), or on the GPUs (auto)."""
    group_size: Annotated[Literal[-1, 16, 32, 64, 128], ReadsInteger] = 128
    """Weights that share a scale; -1 is a whole row, which awq does not have. Of awq and gptq."""
    output_dir: str | None = None
    """Folder to write the model to, which must not exist yet; None is in the job's folder. Alias: quant_output_dir."""
    safe_serialization: bool = True
    """Weights are written as safetensors; nothing else can be written any more."""
    max_shard_size: Annotated[str, AfterValidator(_check_shard_size)] = Field(default="5GB")
    """Largest file of weights."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        contradiction = self._find_in_source() or self._find_in_quantization()
        if not self.safe_serialization:
            contradiction = "safe_serialization: transformers 5 and gptqmodel write safetensors alone: leave it out"
        if contradiction is not None:
            raise ValueError(contradiction)
        return self

    def _find_in_source(self) -> str | None:
        if self.ckpt_from is not None and self.ckpt_dir is not None:
            return "ckpt_from and ckpt_dir both say what is exported: give one of them"
        if self.checkpoint is not None and self.ckpt_from is None:
            return "checkpoint chooses among those of ckpt_from: give that, or ckpt_dir with the folder itself"
        has_checkpoint = self.ckpt_from is not None or self.ckpt_dir is not None
        if self.merge_lora and not has_checkpoint:
            return "merge_lora merges the adapter of a checkpoint: give ckpt_from or ckpt_dir"
        if not self.quant_bits and (not has_checkpoint or self.merge_lora is False):
            return "nothing to export: set quant_bits, or merge an adapter with ckpt_from or ckpt_dir"
        return None

    def _find_in_quantization(self) -> str | None:
        if not self.quant_bits:
            return None
        if self.quant_bits not in BITS[self.quant_method]:
            known = ", ".join(str(bits) for bits in BITS[self.quant_method])
            return f"quant_method {self.quant_method} has no {self.quant_bits} bits: set quant_bits to {known}"
        if self.quant_method == "awq" and self.group_size == -1:
            return "awq shares scales between neighboring weights: set group_size to 16, 32, 64 or 128"
        return None

    @property
    def calibrates(self) -> bool:
        """Whether rows of `dataset` are needed."""
        return self.quant_bits > 0 and self.quant_method != "bnb"
