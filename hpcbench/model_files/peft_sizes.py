"""Numbers of a peft method that do not fit the layers which it goes into, by the model's files.

In: training arguments, a model's folder. Out: why peft would refuse to make the method, or would take another number
in silence (pure). Layers whose shapes the files do not say are left to the job.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from hpcbench.catalog.models import MODELS
from hpcbench.catalog.peft_methods import peft_methods
from hpcbench.model_files.folder import ModelFolder
from hpcbench.model_files.modules import ALL, DEFAULT, EMBEDDING, choose_default, ends_of
from hpcbench.schemas.arguments import SftArgs

Misfit = tuple[str, str, str | None]
"""Field, message, expected."""

_TRANSPOSED: Final = frozenset({"gpt2"})
"""Types of models whose linear layers are saved as [inputs, outputs]."""
_ADAPTION_PROMPT: Final = ("gpt2", "llama", "mistral")
"""Types of models whose attention peft's adaption prompt knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """What a number has to be for a layer of `inputs` and `outputs`."""

    method: str
    field: str
    needs: str
    holds: Callable[[int, int, int], bool]
    """Of inputs, outputs, value."""


def _divides_inputs(inputs: int, _outputs: int, value: int) -> bool:
    return inputs % value == 0


def _divides_both(inputs: int, outputs: int, value: int) -> bool:
    return inputs % value == 0 and outputs % value == 0


_INPUTS: Final = "a divisor of the layer's inputs"
_BOTH: Final = "a divisor of the layer's inputs and outputs"
_RULES: Final = (
    _Rule(method="boft", field="boft_block_size", needs=_INPUTS, holds=_divides_inputs),
    _Rule(method="boft", field="boft_block_num", needs=_INPUTS, holds=_divides_inputs),
    # Where they do not divide, peft takes another number and warns.
    _Rule(method="oft", field="oft_block_size", needs=_INPUTS, holds=_divides_inputs),
    _Rule(method="oft", field="r", needs=_INPUTS, holds=_divides_inputs),
    _Rule(method="c3a", field="block_size", needs=_BOTH, holds=_divides_both),
    _Rule(method="vblora", field="vector_length", needs=_BOTH, holds=_divides_both),
    _Rule(method="gralora", field="gralora_k", needs=_BOTH, holds=_divides_both),
    _Rule(
        method="road", field="group_size", needs="a divisor of the layer's outputs",
        holds=lambda _inputs, outputs, value: outputs % value == 0,
    ),
    *(
        _Rule(
            method=method, field="n_frequency", needs="no more than the layer's weights",
            holds=lambda inputs, outputs, value: value <= inputs * outputs,
        )
        for method in ("fourierft", "waveft")
    ),
    _Rule(
        method="miss", field="r", needs="no more than the layer's inputs",
        holds=lambda inputs, _outputs, value: value <= inputs,
    ),
    _Rule(
        method="psoft", field="r", needs="no more than the layer's inputs and its outputs",
        holds=lambda inputs, outputs, value: value <= min(inputs, outputs),
    ),
    _Rule(
        method="shira", field="r", needs="r x (inputs + outputs) no more than the layer's weights",
        holds=lambda inputs, outputs, value: value * (inputs + outputs) <= inputs * outputs,
    ),
)  # fmt: skip


def find_misfits(args: SftArgs, model: ModelFolder) -> Iterator[Misfit]:
    """Yield the numbers that do not fit, each once."""
    model_type = model.config.get("model_type")
    if args.sft_type == "adaption_prompt" and model_type not in _ADAPTION_PROMPT:
        message = f"peft has adaption_prompt for models of type {', '.join(_ADAPTION_PROMPT)}; {model.name} is none"
        yield "sft_type", message, "another method, such as prefix_tuning"
    for rule in _RULES:
        if rule.method != args.sft_type:
            continue
        value = args.peft_config.get(rule.field, peft_methods()[rule.method].fields[rule.field].default)
        for name, (inputs, outputs) in _find_targets(args, model).items() if value else ():
            if not rule.holds(inputs, outputs, value):
                message = (
                    f"{rule.method} with {rule.field} {value} does not fit {name} of {model.name}, "
                    f"which has {inputs} inputs and {outputs} outputs"
                )
                yield rule.field, message, f"{rule.field}: {rule.needs}"
                break


def _find_targets(args: SftArgs, model: ModelFolder) -> Mapping[str, tuple[int, int]]:
    """Return (inputs, outputs) of the linear layers that the method goes into, by their names."""
    shapes = {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in model.weights.shapes.items()
        if name.endswith(".weight") and len(shape) == 2  # noqa: PLR2004  # of a matrix
    }
    if model.config.get("model_type") not in _TRANSPOSED:
        shapes = {name: (inputs, outputs) for name, (outputs, inputs) in shapes.items()}
    if args.target_regex is not None:
        return {name: shape for name, shape in shapes.items() if re.fullmatch(args.target_regex, name)}
    words = set(args.lora_target_modules) - {DEFAULT, ALL, EMBEDDING}
    if DEFAULT in args.lora_target_modules:
        entry = MODELS.lookup(args.model_type) if args.model_type is not None else None
        words |= set(choose_default(shapes, entry.lora_target_modules if entry is not None else None) or ())
    in_layers = re.compile(r"\.\d+\.")
    return {
        name: shape
        for name, shape in shapes.items()
        if words & set(ends_of(name)) or (ALL in args.lora_target_modules and in_layers.search(name))
    }
