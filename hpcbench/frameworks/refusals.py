"""What a framework cannot be asked for: each argument and value that its file has no place for.

In: a recipe, the resolved arguments and resources. Out: refusals, one for each argument. Nothing is dropped: what is
neither carried out before the framework starts nor written into its file is here, unless it has its default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hpcbench.frameworks.recipe import READ_BY_HPCBENCH, WITHOUT_EFFECT, Recipe, Refusal, Run
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.request import Device, Resources

TUNERS: Final = ("lora", "full")
_INSTEAD: Final = "remove it, or take `cmd: sft`"
_REASONS: Final[Mapping[str, str]] = {
    "packing": "packs its samples in another way, so the rows would not compare",
    "template_type": "writes prompts as its own template says, by default the tokenizer's",
    "loss_on_all_rounds": "learns the last answer of a dialogue alone",
}


def find_refusals(
    recipe: Recipe, args: SftArgs, extra: Mapping[str, Any], resources: Resources | None, device: Device
) -> Iterator[Refusal]:
    """Yield what the framework cannot be asked for; nothing where it can carry out all of it."""
    if args.sft_type not in TUNERS:
        yield Refusal(argument="sft_type", why=f"trains {' and '.join(TUNERS)} alone", hint="take `cmd: sft`")
        return
    expressed = recipe.honored | READ_BY_HPCBENCH | WITHOUT_EFFECT
    for name in type(args).model_fields:
        if name not in expressed and args.differs_from_default(name):
            yield Refusal(argument=name, why=_REASONS.get(name, "has no setting for it"), hint=_INSTEAD)
    yield from _find_in_values(recipe, args)
    if resources is not None:
        yield from _find_in_resources(resources, device)
    if recipe.needs_gpu and device == "cpu":
        yield Refusal(argument=".device", why="cannot be told to train on the CPU", hint="device: cuda")
    written = written_settings(recipe, args, device)
    for name in extra:
        if name in written:
            why = "is written by hpcbench from the arguments of the suite"
            yield Refusal(argument=f"framework_args.{name}", why=why, hint="set the argument that it comes from")


def _find_in_values(recipe: Recipe, args: SftArgs) -> Iterator[Refusal]:
    if args.tuner_backend == "unsloth":
        yield Refusal(argument="tuner_backend", why="is not combined with unsloth", hint=_INSTEAD)
    if args.quant_method not in {None, "bnb"}:
        yield Refusal(argument="quant_method", why="takes what the model's folder holds", hint="remove it")
    if "EMBEDDING" in args.lora_target_modules:
        yield Refusal(argument="lora_target_modules", why="has no word for EMBEDDING", hint="name the modules")
    yield from recipe.find_refusals(args)


def _find_in_resources(resources: Resources, device: Device) -> Iterator[Refusal]:
    if resources.nodes > 1:
        yield Refusal(argument="requirements.nodes", why="runs on one node", hint="requirements: {nodes: 1}")
    elif device == "cpu" and resources.ddp > 1:
        yield Refusal(argument="requirements.ddp", why="runs in one process on the CPU", hint="requirements: {ddp: 1}")
    elif device == "cuda" and resources.gpu != resources.ddp:
        hint = f"requirements: {{gpu: {resources.gpu}, ddp: {resources.gpu}}}"
        yield Refusal(argument="requirements.gpu", why="runs one process on each GPU", hint=hint)


def written_settings(recipe: Recipe, args: SftArgs, device: Device) -> frozenset[str]:
    """Return the names that the framework's file has whatever the rows are."""
    here = Path("/")
    run = Run(
        args=args, model=here, rows=here, output=here, num_train_rows=1, num_val_rows=1, device=device, resume=here
    )
    refused = {refusal.argument for refusal in recipe.find_refusals(args)}
    return frozenset() if refused else frozenset(recipe.settings(run))
