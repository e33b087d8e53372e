"""Arguments that say which model it is, and how its weights are loaded."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self

from pydantic import field_validator, model_validator

from hpcbench.schemas.arguments.base import Arguments, Dtype, ReadsInteger, Words

ATTENTIONS: Final = ("sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention")
HUB_KERNELS: Final = "kernels-community/"
"""Begins the names of attention kernels that the package `kernels` loads from Hugging Face's hub."""
_HUB_KERNEL: Final = re.compile(rf"{HUB_KERNELS}[\w.-]+(@[\w.-]+)?(:\w+)?")


class ModelArgs(Arguments):
    """Which model, how its prompts are written, and how its weights are loaded."""

    model_type: str | None = None
    """Name in the model catalog, or a free label when `model_id_or_path` is given."""
    model_id_or_path: str | None = None
    """Hub id or local folder; overrides the catalog's. Alias: model."""
    model_revision: str | None = None
    """Branch, tag or commit of a model on a hub; None is its main branch. `hpcbench prefetch` downloads that one."""
    rope_scaling: Literal["linear", "dynamic", "yarn"] | None = None
    """Stretch rotary positions to max_length, beyond those that the model was trained with, by transformers' name."""
    device_max_memory: Words = ()
    """Memory that layers may take on each GPU of a rank, for example [20GiB, 40GiB]; none spreads them evenly."""
    template_type: str | None = None
    """Chat template by catalog name; None takes the tokenizer's own."""
    system: str | None = None
    """System prompt; None sends none and leaves the template's own default."""
    dtype: Dtype = "bf16"
    """Dtype of the weights when loaded; bf16 keeps no fp32 master copy."""
    use_flash_attn: bool | None = None
    """True asks for flash attention and takes what there is without it, False forbids it, None takes the best that is
    installed; the record says what ran."""
    attn_impl: str | None = None
    """Attention by transformers' name: sdpa, eager, flash_attention_2, flash_attention_3, flex_attention, or a kernel
    of the hub such as kernels-community/flash-attn2. This one runs, or the job is refused; None leaves it to
    use_flash_attn."""
    trust_remote_code: bool = False
    """Whether Python code that comes with a model may run."""
    quantization_bit: Annotated[Literal[0, 4, 8], ReadsInteger] = 0
    """Bits per weight of the frozen base's linear layers (bitsandbytes; 4 is QLoRA, arXiv:2305.14314); 0 is `dtype`."""
    quant_method: Literal["bnb", "gptq", "awq", "aqlm"] | None = None
    """Whose the weights of few bits are: bnb's, with quantization_bit, or the model folder's own; None takes what there
    is, and another than there is is refused."""
    bnb_4bit_comp_dtype: Dtype | None = None
    """Dtype in which layers of 4 bits compute; None is `dtype`. This and the next two only with quantization_bit 4."""
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """The 16 values of a weight: nf4 suits normally distributed weights, fp4 is a float of 4 bits."""
    bnb_4bit_use_double_quant: bool = True
    """Whether the scales of the 4-bit blocks are quantised too (8 bits each)."""

    @field_validator("attn_impl")
    @classmethod
    def _is_an_attention(cls, name: str | None) -> str | None:
        if name is not None and name not in ATTENTIONS and _HUB_KERNEL.fullmatch(name) is None:
            raise ValueError(f"unknown attention {name!r}: {', '.join(ATTENTIONS)}, or {HUB_KERNELS}NAME")
        return name

    @model_validator(mode="after")
    def _needs_a_model(self) -> Self:
        if self.model_type is None and self.model_id_or_path is None:
            raise ValueError("no model: give model_type (catalog name) or model_id_or_path (hub id or folder)")
        return self

    @model_validator(mode="after")
    def _names_one_attention(self) -> Self:
        if self.attn_impl is not None and self.use_flash_attn not in {None, "flash" in self.attn_impl}:
            flash = str(self.use_flash_attn).lower()
            raise ValueError(f"attn_impl {self.attn_impl} contradicts use_flash_attn {flash}: give one of them")
        return self

    @property
    def model_name(self) -> str:
        """Name for tables: model_type, or the last part of the path."""
        if self.model_type is not None:
            return self.model_type
        return (self.model_id_or_path or "").rstrip("/").rsplit("/", 1)[-1]
