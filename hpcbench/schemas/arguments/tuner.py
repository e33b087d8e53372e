"""Arguments of the fine-tuning methods, and which of them exclude each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from hpcbench.schemas.arguments.base import (
    Arguments,
    Decay,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ReadsInteger,
    Words,
)
from hpcbench.schemas.tuners import SHORTHANDS, list_sft_types

if TYPE_CHECKING:
    SftType = str
else:
    # A new file in worker/tuners is a new choice, in messages, help and the JSON Schema alike.
    SftType = Literal[list_sft_types()]

LORA_ONLY: Final = (
    *("use_dora", "use_rslora", "lora_lr_ratio"),
    *("lora_bias_trainable", "lora_modules_to_save", "init_lora_weights"),
)
"""Arguments of lora that adalora, which takes the others of lora's, does not have."""


class TunerArgs(Arguments):
    """Which parameters are trained, and how."""

    sft_type: SftType = "lora"
    """Fine-tuning method; dora, rslora, lora+, qlora, galore and lisa are lora or full with their switch on."""
    tuner_backend: Literal["peft", "swift", "unsloth"] = "peft"
    """What trains lora or full: peft (swift is the same), or unsloth with layers and kernels of its own, on one GPU and
    in the environment of that name of the cluster profile."""
    lora_target_modules: Words = ("DEFAULT",)
    """Module names; ALL is every linear layer but the head, DEFAULT the attention's query, key and value, EMBEDDING the
    input's embedding. A name that the model lacks is refused."""
    lora_rank: PositiveInt = 8
    """Rank of the adapter's two matrices."""
    lora_alpha: PositiveFloat = 32.0
    """The adapter's output is scaled by lora_alpha / lora_rank."""
    lora_dropout_p: Fraction = 0.0
    """Probability of dropout before the adapter."""
    lora_lr_ratio: PositiveFloat | None = None
    """Learning rate of B over that of A (LoRA+, arXiv:2402.12354); None trains plain lora."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(lora_rank) instead (rsLoRA, arXiv:2312.03732)."""
    use_dora: bool = False
    """Train magnitude and direction of the weights separately (DoRA, arXiv:2402.09353)."""
    lora_bias_trainable: Literal["none", "all", "lora_only"] = "none"
    """Biases that are trained and saved with the adapter: none, all of the model, or those of adapted layers. They and
    lora_modules_to_save are trained in the base's dtype, as full trains."""
    lora_modules_to_save: Words = ()
    """Modules trained in full beside the adapter and saved with it, by name, for example embed_tokens."""
    init_lora_weights: Literal["true", "false", "gaussian"] = "true"
    """How A is drawn: as in the authors' code or normally (gaussian), B zero; false draws B too, for tests."""
    adalora_target_r: PositiveInt = 8
    """Mean rank at the end; lora_alpha, lora_dropout_p and lora_target_modules count for adalora too."""
    adalora_init_r: PositiveInt = 12
    """Rank of every layer at the start."""
    adalora_tinit: NonNegativeInt = 0
    """Optimizer steps before ranks shrink."""
    adalora_tfinal: NonNegativeInt = 0
    """Optimizer steps at the end with fixed ranks."""
    adalora_deltaT: PositiveInt = 1  # noqa: N815  # ms-swift's name
    """Optimizer steps between two allocations of rank."""
    adalora_beta1: Decay = 0.85
    """Smoothing of the importance of a weight."""
    adalora_beta2: Decay = 0.85
    """Smoothing of the importance's uncertainty."""
    adalora_orth_reg_weight: NonNegativeFloat = 0.5
    """Weight of the orthogonality term in the training loss; eval_loss has none."""
    adapter_act: Literal["gelu", "relu", "silu", "tanh"] = "gelu"
    """Activation in the adapter's bottleneck."""
    adapter_length: PositiveInt = 128
    """Width of the adapter's bottleneck."""
    ia3_target_modules: Words = ("DEFAULT",)
    """Modules whose output is scaled; DEFAULT is the projections to key and value and the MLP's last."""
    ia3_feedforward_modules: Words = ()
    """Those of `ia3_target_modules` whose input is scaled instead; with DEFAULT the MLP's last."""
    llamapro_num_new_blocks: PositiveInt = 4
    """Decoder layers added to the model; they alone are trained."""
    llamapro_num_groups: PositiveInt | None = None
    """Places where they are added, evenly spread; None is one place for each."""
    lisa_activated_layers: NonNegativeInt = 0
    """Decoder layers that full trains at a time, redrawn again and again (LISA, arXiv:2403.17919); 0 is all."""
    lisa_step_interval: PositiveInt = 20
    """Optimizer steps between two draws."""
    use_galore: bool = False
    """Whether full keeps its optimizer state in low rank (GaLore, arXiv:2403.03507)."""
    galore_rank: PositiveInt = 128
    """Rank that gradients are projected to."""
    galore_target_modules: Words = ()
    """Modules whose gradients are projected; none is every linear layer but the head."""
    galore_update_proj_gap: PositiveInt = 50
    """Optimizer steps between two SVDs of a gradient."""
    galore_scale: PositiveFloat = 1.0
    """Factor on the updates of projected weights."""
    galore_proj_type: Literal["std", "reverse_std", "right", "left", "full"] = "std"
    """Side that is projected: std the longer one, reverse_std the shorter one, full both."""
    galore_per_parameter: bool = False
    """Free each gradient as soon as its weight is updated; same numbers, a lower peak."""
    galore_with_embedding: bool = False
    """Project the embedding's gradient too."""
    galore_quantization: bool = False
    """Keep the moments in 8 bits and make SVDs rarer where directions stay (Q-GaLore, arXiv:2407.08296)."""
    galore_proj_quant: bool = False
    """Keep the projections in `galore_proj_bits`; SVDs become rarer too."""
    galore_proj_bits: Annotated[Literal[4, 8], ReadsInteger] = 4
    """Bits of a projection's entries with galore_proj_quant."""
    galore_proj_group_size: Annotated[int, Field(ge=2, multiple_of=2)] = 256
    """Weights of a projection that share a scale."""
    galore_cos_threshold: Fraction = 0.4
    """Mean cosine between first singular vectors of neighbouring SVDs from which the gap between SVDs grows."""
    galore_gamma_proj: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0
    """Factor by which it grows."""
    galore_queue_size: PositiveInt = 5
    """Cosines in that mean."""

    @model_validator(mode="before")
    @classmethod
    def _spell_out_shorthands(cls, values: Any) -> Any:
        """Turn `sft_type: dora` and its like into the method and its switch."""
        word = values.get("sft_type") if isinstance(values, dict) else None
        if not isinstance(word, str) or word not in SHORTHANDS:
            return values
        meant = SHORTHANDS[word]
        given = {key: value for key, value in values.items() if key != "sft_type" and value is not None}
        for key in meant.keys() & given.keys():
            if str(given[key]).strip().lower() in {"false", "0", "no", "off"}:
                raise ValueError(f"sft_type {word} contradicts {key}: {given[key]}")
        return {**meant, **given}

    @model_validator(mode="after")
    def _methods_fit_together(self) -> Self:
        contradiction = self._find_in_full() or self._find_in_adalora()
        if contradiction is not None:
            raise ValueError(contradiction)
        return self

    def _find_in_full(self) -> str | None:
        for name in ("galore_quantization", "galore_proj_quant"):
            if getattr(self, name) and not self.use_galore:
                return f"{name} is for galore: set use_galore: true"
        switches = {"use_galore": self.use_galore, "lisa_activated_layers": self.lisa_activated_layers > 0}
        for name in (name for name, is_on in switches.items() if is_on):
            if self.sft_type != "full":
                return f"{name} is for sft_type full, not {self.sft_type}"
        return "use_galore and lisa_activated_layers are two methods: choose one" if all(switches.values()) else None

    def _find_in_adalora(self) -> str | None:
        if self.sft_type != "adalora":
            return None
        if self.adalora_target_r >= self.adalora_init_r:
            return (
                f"adalora_init_r ({self.adalora_init_r}) must be larger than adalora_target_r "
                f"({self.adalora_target_r}): ranks only shrink"
            )
        changed = [name for name in LORA_ONLY if self.differs_from_default(name)]
        return f"{', '.join(changed)}: for sft_type lora, not adalora" if changed else None

    @property
    def tuner(self) -> str:
        """Name of the method's file: sft_type, or what trains `full` in its own way."""
        if self.use_galore:
            return "galore"
        return "lisa" if self.lisa_activated_layers else self.sft_type
