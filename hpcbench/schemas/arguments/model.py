"""The model to train or evaluate, its chat template, and the form of its weights in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import model_validator

from hpcbench.schemas.arguments.fields import Arguments, ReadsInteger

Dtype = Literal["bf16", "fp16", "fp32"]
TORCH_DTYPES: Final[Mapping[Dtype, str]] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""torch's names."""


class ModelArgs(Arguments):
    """Which model, how its prompts are written, and how its weights are loaded."""

    model_type: str | None = None
    """Name in the model catalog, or a free label when `model_id_or_path` is given."""
    model_id_or_path: str | None = None
    """Hub id or local folder; overrides the catalog's. Alias: model."""
    template_type: str | None = None
    """Chat template by catalog name; None takes the tokenizer's own."""
    system: str | None = None
    """System prompt; None sends none and leaves the template's own default."""
    dtype: Dtype = "bf16"
    """Dtype of the weights when loaded; bf16 keeps no fp32 master copy."""
    use_flash_attn: bool | None = None
    """True asks for flash attention, False forbids it, None takes the best that is installed."""
    trust_remote_code: bool = False
    """Whether Python code that comes with a model may run."""
    quantization_bit: Annotated[Literal[0, 4, 8], ReadsInteger] = 0
    """Bits per weight of the frozen base's linear layers (bitsandbytes; 4 is QLoRA, arXiv:2305.14314); 0 is `dtype`."""
    bnb_4bit_comp_dtype: Dtype | None = None
    """Dtype in which layers of 4 bits compute; None is `dtype`. This and the next two only with quantization_bit 4."""
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """The 16 values of a weight: nf4 suits normally distributed weights, fp4 is a float of 4 bits."""
    bnb_4bit_use_double_quant: bool = True
    """Whether the scales of the 4-bit blocks are quantised too (8 bits each)."""

    @model_validator(mode="after")
    def _needs_a_model(self) -> Self:
        if self.model_type is None and self.model_id_or_path is None:
            raise ValueError("no model: give model_type (catalog name) or model_id_or_path (hub id or folder)")
        return self

    @property
    def model_name(self) -> str:
        """Name for tables: model_type, or the last part of the path."""
        if self.model_type is not None:
            return self.model_type
        return (self.model_id_or_path or "").rstrip("/").rsplit("/", 1)[-1]
