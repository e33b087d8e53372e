"""Arguments of learning from preferences (`cmd: rlhf`), and which of them exclude each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hpcbench.schemas.arguments.base import (
    Arguments,
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Words,
    split_words,
)

RlhfType = Literal["dpo", "orpo", "simpo", "kto", "cpo"]
LOSS_TYPES: Final[Mapping[RlhfType, tuple[str, ...]]] = {
    "dpo": (
        *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
        *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
    ),
    "kto": ("kto", "apo_zero_unpaired"),
    "cpo": ("sigmoid", "hinge", "ipo"),
    "simpo": ("simpo",),
    "orpo": ("orpo",),
}
"""Values of `loss_type`, by `rlhf_type`; the first is taken where none is given. TRL 1.16 has these."""
WITH_REFERENCE: Final[frozenset[RlhfType]] = frozenset({"dpo", "kto"})
"""Values of `rlhf_type` whose loss compares the model with a reference model."""
_SMOOTHED: Final = {"dpo": ("robust", "exo_pair", "aot", "aot_unpaired"), "cpo": ("sigmoid",), "simpo": ("simpo",)}
"""Values of `loss_type` that label_smoothing counts for, by `rlhf_type`."""
Weights = Annotated[tuple[NonNegativeFloat, ...], BeforeValidator(split_words)]


class PreferenceArgs(Arguments):
    """How a model learns which of two answers is better."""

    rlhf_type: RlhfType | None = None
    """Loss of `cmd: rlhf`; None for every other command. `cmd: dpo` is `cmd: rlhf` with this one, and so on."""
    beta: PositiveFloat | None = None
    """How far the model may go for a preference: the more, the closer it stays to the reference; in orpo the weight of
    the odds ratio. None is 0.1, for simpo 2.0."""
    loss_type: Words = ()
    """Form of the loss by TRL's name; none is sigmoid for dpo and cpo, and the only one or kto for the others. dpo
    takes several, which are added up."""
    loss_weights: Weights = ()
    """Weight of each of several `loss_type`s; none is 1 for each."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Part of the pairs whose answers may have been mixed up; with loss_type robust, exo_pair, aot and aot_unpaired of
    dpo, sigmoid of cpo, and simpo."""
    ref_model_id_or_path: str | None = None
    """Reference model of dpo and kto, a hub id or folder; None is the model as it is before training. Alias:
    ref_model."""
    ref_model_type: str | None = None
    """Reference model by its name in the model catalog."""
    ref_adapters: Words = ()
    """Folder of an adapter that the reference model has."""
    ref_model_free: bool = False
    """Compare with a reference that finds every answer equally likely, which needs no second forward pass."""
    max_prompt_length: PositiveInt | None = None
    """Longest prompt in tokens: a longer one loses its beginning. None limits prompt and answer together alone."""
    sft_beta: Fraction = 0.0
    """Part of the plain loss on the chosen answer in dpo's loss, the rest is dpo's own; SWIFT 2.4's default is 0.1."""
    rpo_alpha: NonNegativeFloat | None = None
    """Weight of the plain loss on the chosen answer, added to dpo's (RPO, arXiv:2404.19733); None adds none."""
    ld_alpha: Fraction | None = None
    """Weight of the tokens by which one answer of dpo is longer than the other (LD-DPO, arXiv:2409.06411); None is
    1."""
    discopop_tau: PositiveFloat = 0.05
    """Temperature of loss_type discopop (arXiv:2406.08414)."""
    simpo_gamma: NonNegativeFloat = 1.0
    """Margin by which simpo wants the chosen answer to be better (arXiv:2405.14734)."""
    cpo_alpha: NonNegativeFloat = 1.0
    """Weight of the plain loss on the chosen answer in cpo and simpo; 0 is simpo as published."""
    desirable_weight: NonNegativeFloat = 1.0
    """Weight of kto's good answers (arXiv:2402.01306)."""
    undesirable_weight: NonNegativeFloat = 1.0
    """Weight of kto's bad answers."""

    @model_validator(mode="after")
    def _losses_fit(self) -> Self:
        contradiction = None if self.rlhf_type is None else self._find_in_losses(self.rlhf_type)
        if contradiction is not None:
            raise ValueError(contradiction)
        return self

    def _find_in_losses(self, kind: RlhfType) -> str | None:
        known = LOSS_TYPES[kind]
        unknown = [name for name in self.loss_type if name not in known]
        if unknown:
            return f"loss_type {unknown[0]} is none of {kind}: take {', '.join(known)}"
        if len(self.loss_type) > 1 and kind != "dpo":
            return f"{kind} takes one loss_type, and {len(self.loss_type)} are given: name one"
        if self.loss_weights and len(self.loss_weights) != len(self.loss_type):
            return f"{len(self.loss_weights)} loss_weights for {len(self.loss_type)} values of loss_type: name as many"
        added = [name for name in ("sft_beta", "rpo_alpha") if self.differs_from_default(name)]
        if added and (len(added) > 1 or len(self.loss_type) > 1):
            names = " and ".join([*added, "loss_type"][:2])
            return f"{names} both mix losses: write loss_type: [sigmoid, sft] and loss_weights alone"
        if "exo_pair" in self.loss_type and self.label_smoothing == 0:
            return "loss_type exo_pair needs a label_smoothing above 0, such as 0.001"
        if self.ref_model_free and (self.ref_model_id_or_path or self.ref_model_type or self.ref_adapters):
            return "ref_model_free contradicts a reference model: give one of them"
        return None

    @property
    def effective_beta(self) -> float:
        """`beta` with ms-swift's defaults filled in."""
        if self.beta is not None:
            return self.beta
        return 2.0 if self.rlhf_type == "simpo" else 0.1

    @property
    def losses(self) -> tuple[tuple[str, float], ...]:
        """The losses that are added up and the weight of each, by TRL's names; none for a training of another kind."""
        if self.rlhf_type is None:
            return ()
        names = self.loss_type or LOSS_TYPES[self.rlhf_type][:1]
        if self.differs_from_default("sft_beta"):
            return (names[0], 1 - self.sft_beta), ("sft", self.sft_beta)
        if self.rpo_alpha is not None:
            return (names[0], 1.0), ("sft", self.rpo_alpha)
        return tuple(zip(names, self.loss_weights or (1.0,) * len(names), strict=True))

    @property
    def uses_label_smoothing(self) -> bool:
        """Whether the loss has a place for `label_smoothing`."""
        smoothed = _SMOOTHED.get(self.rlhf_type or "", ())
        return any(name in smoothed for name, _ in self.losses)

    @property
    def estimates_kl(self) -> bool:
        """Whether the loss compares each answer with those to other prompts of its batch, as kto's does."""
        return any(name == "kto" for name, _ in self.losses)
