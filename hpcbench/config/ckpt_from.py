"""Whose model an experiment takes: `ckpt_from` names another experiment of the suite.

In: the variants of all entries, with their layers. Out: the experiments that each becomes: one for each model that its
name means, with the model's arguments of the one that made it. It builds no experiment and reads no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from hpcbench.config.layers import Layer
from hpcbench.config.names import keep_name
from hpcbench.errors import Problem, did_you_mean
from hpcbench.schemas.arguments import ExportArgs, InferArgs, ModelArgs
from hpcbench.schemas.request import TRAININGS
from hpcbench.schemas.suite import Experiment
from hpcbench.storage.located_yaml import Located, show

CKPT_FROM = "ckpt_from"
_OF_THE_BASE = ("model_type", "model_id_or_path")
_HOW_IT_WAS_HELD = ("quantization_bit", "quant_method", "bnb_4bit_")
INHERITED = tuple(name for name in ModelArgs.model_fields if not name.startswith(_HOW_IT_WAS_HELD))
"""Arguments that a model has, whoever takes it; how the base's weights were held in the training is none of them."""
_MAKERS = "an experiment that trains, exports, or is a command with an output_model"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Variant:
    """One cell of an entry's matrix, or the entry itself."""

    entry: Located
    entry_name: str
    name: str
    layer: Layer
    takes: Located | None = None
    """Where it says whose model it takes."""
    repeats: int = 1
    """Runs with seeds of their own; one that takes a model has its maker's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One experiment to be: a variant with a seed, or with a model to take."""

    name: str
    variant: Variant
    layer: Layer
    base_experiment: str | None = None
    repeat: int | None = None
    maker: str | None = None
    """Name of the experiment whose model it takes."""


@dataclass(slots=True, kw_only=True)
class Makers:
    """All variants of a suite, and the experiments that each becomes."""

    variants: Sequence[Variant]
    problems: list[Problem]
    taken: AbstractSet[str] = frozenset()
    """Names that have results."""
    _members: dict[Variant, tuple[Member, ...]] = field(default_factory=dict)
    _under_way: list[Variant] = field(default_factory=list)
    _inherited: dict[tuple[int, int], Layer] = field(default_factory=dict)

    def members(self, variant: Variant) -> tuple[Member, ...]:
        """Return the experiments that a variant becomes; what cannot be resolved goes to `problems`."""
        if variant not in self._members:
            self._under_way.append(variant)
            self._members[variant] = tuple(self._find_members(variant))
            self._under_way.pop()
        return self._members[variant]

    def _find_members(self, variant: Variant) -> Iterable[Member]:
        takes = variant.takes
        if takes is None:
            yield from _repeated(variant, self.taken)
            return
        named = str(takes.value)
        makers = self._find_makers(named, takes)
        for maker in makers:
            # Repeats of the maker have one layer, and so does what takes their models.
            key = (id(variant.layer), id(maker.layer))
            layer = self._inherited.get(key) or self._inherit(variant.layer, maker)
            self._inherited[key] = layer
            if len(makers) == 1:
                yield Member(name=variant.name, variant=variant, layer=layer, maker=maker.name)
                continue
            base = (
                None
                if maker.base_experiment is None
                else _named_after(variant.name, named, maker.base_experiment, self.taken)
            )
            yield Member(
                name=_named_after(variant.name, named, maker.name, self.taken),
                variant=variant,
                layer=layer,
                base_experiment=base,
                repeat=maker.repeat,
                maker=maker.name,
            )

    def _find_makers(self, named: str, at: Located) -> list[Member]:
        """Return the experiments of this name: one, all repeats of a variant, or all variants of an entry."""
        for known in (self._of_name(named), self._of_variant(named), self._of_entry(named)):
            if known:
                return known
        names = list(dict.fromkeys(name for v in self.variants for name in (v.entry_name, v.name) if name))
        if named in names:
            chain = " -> ".join([*(variant.name for variant in self._under_way), named])
            self.problems.append(at.problem(f"no experiment can take its own model: {chain}", expected=_MAKERS))
        else:
            hint = did_you_mean(named, names)
            self.problems.append(at.problem(f"no experiment {show(at)} in this suite", expected=_MAKERS, hint=hint))
        return []

    def _of_name(self, name: str) -> list[Member]:
        exact = [variant for variant in self.variants if variant.name and name.startswith(variant.name)]
        return [member for variant in self._free(exact) for member in self.members(variant) if member.name == name][:1]

    def _of_variant(self, name: str) -> list[Member]:
        found = [variant for variant in self.variants if variant.name == name]
        return [member for variant in self._free(found) for member in self.members(variant)]

    def _of_entry(self, name: str) -> list[Member]:
        found = [variant for variant in self.variants if variant.entry_name == name]
        return [member for variant in self._free(found) for member in self.members(variant)]

    def _free(self, variants: Iterable[Variant]) -> list[Variant]:
        """Return those that do not ask for a maker just now: that would be a cycle."""
        return [variant for variant in variants if variant not in self._under_way]

    def _inherit(self, layer: Layer, maker: Member) -> Layer:
        """Return the layer with the arguments of the maker's model, which a layer for all experiments does not beat."""
        args = dict(layer.section("args"))
        theirs = maker.layer.section("args")
        for name in INHERITED:
            mine = args.get(name)
            if mine is None or mine.source == "suite":
                args.pop(name, None)
                if name in theirs:
                    args[name] = theirs[name]
            elif name in _OF_THE_BASE and (other := theirs.get(name)) is not None and other.value != mine.value:
                message = f"{show(mine)} is not what {maker.name!r} makes its model of, which is {show(other)}"
                self.problems.append(mine.problem(message, hint=f"leave it out: `{CKPT_FROM}` says which model it is"))
        return replace(layer, sections={**layer.sections, "args": args})


def _repeated(variant: Variant, taken: AbstractSet[str]) -> Iterable[Member]:
    if variant.repeats == 1:
        yield Member(name=variant.name, variant=variant, layer=variant.layer)
        return
    for number in range(variant.repeats):
        name = keep_name(f"{variant.name}-seed{number}", taken)
        yield Member(name=name, variant=variant, layer=variant.layer, base_experiment=variant.name, repeat=number)


def _named_after(name: str, maker: str, member: str, taken: AbstractSet[str]) -> str:
    """Return the name of one of several that take a model: `merged` of `lora-seed1`, by `lora`, is `merged-seed1`."""
    suffix = member.removeprefix(maker) if member.startswith(maker) else f"-{member}"
    return keep_name(f"{name}{suffix}", taken)


def as_member(experiment: Experiment, member: Member) -> Experiment:
    """Return the experiment that was built of a member's layer, as this member: with its name, seed and model."""
    changes: dict[str, Any] = {
        "name": member.name,
        "base_experiment": member.base_experiment,
        "repeat": member.repeat,
    }
    if member.maker is not None:
        for group in ("command", "export", "infer"):
            if (args := getattr(experiment, group)) is not None:
                changes[group] = args.model_copy(update={CKPT_FROM: member.maker})
    elif member.repeat is not None:
        args = experiment.args
        changes["args"] = None if args is None else args.model_copy(update={"seed": args.seed + member.repeat})
        changes["source_of"] = {**experiment.source_of, **({} if args is None else {"seed": "matrix"})}
    return replace(experiment, **changes)


def parents_first(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Return the experiments in their order, but each after the one whose model it takes."""
    by_name = {experiment.name: experiment for experiment in experiments}
    done: dict[str, Experiment] = {}

    def put(experiment: Experiment) -> None:
        parent = None if experiment.ckpt_from is None else by_name.get(experiment.ckpt_from)
        if experiment.name not in done:
            if parent is not None:
                put(parent)
            done[experiment.name] = experiment

    for experiment in experiments:
        put(experiment)
    return list(done.values())


def check_makers(experiments: Iterable[Experiment], at: Mapping[str, Located]) -> list[Problem]:
    """Return the experiments that take the model of one that leaves none; `at` is where each says so, by its name."""
    by_name = {experiment.name: experiment for experiment in experiments}
    problems = []
    for name, where in at.items():
        taker = by_name.get(name)
        maker = None if taker is None or taker.ckpt_from is None else by_name.get(taker.ckpt_from)
        if taker is None or maker is None:
            continue
        if maker.cmd in {"eval", "infer"} or (maker.command is not None and maker.command.output_model is None):
            what = "a command without output_model" if maker.cmd == "command" else f"of `cmd: {maker.cmd}`"
            problems.append(where.problem(f"{maker.name!r} makes no model: it is {what}", expected=_MAKERS))
        elif maker.cmd in TRAININGS and maker.args is not None and maker.args.save_strategy == "no":
            message = f"`save_strategy: no` of {maker.name!r} leaves no checkpoint to take"
            problems.append(where.problem(message, hint="leave save_strategy out"))
        elif taker.export is not None and (problem := _check_merge(taker.export, maker, where)) is not None:
            problems.append(problem)
        elif taker.infer is not None and (fault := _find_in_infer(taker.infer, maker)) is not None:
            problems.append(where.problem(fault[0], hint=fault[1]))
    return problems


def _find_in_infer(infer: InferArgs, maker: Experiment) -> tuple[str, str] | None:
    """Return why an infer job cannot answer as asked with its maker's model, and a hint."""
    args, name = maker.args, maker.name
    if args is None or maker.cmd == "command":
        return None
    is_whole = maker.cmd == "export" or (not args.merges and not args.is_peft_method and args.tuner != "adapter")
    if (infer.merge_lora or infer.merge_lora_and_save) and (is_whole or not args.merges):
        what = (
            "makes a whole model, which holds no adapter" if is_whole else f"trains by {args.sft_type}, which has none"
        )
        return f"{name!r} {what} to merge", "leave merge_lora out"
    if infer.infer_backend != "vllm" or is_whole:
        return None
    if args.sft_type != "lora" or args.init_lora_weights.startswith(("pissa", "olora")):
        message = f"`infer_backend: vllm`: what {name!r} trains cannot be put on the base as it is"
        return message, "set infer_backend: pt, or merge it by `cmd: export` first"
    if args.lora_rank > infer.vllm_max_lora_rank:
        needed = max(8, 1 << (args.lora_rank - 1).bit_length())
        message = f"the adapter of {name!r} has rank {args.lora_rank}, and `vllm_max_lora_rank` is"
        return f"{message} {infer.vllm_max_lora_rank}", f"set vllm_max_lora_rank: {needed}"
    return None


def _check_merge(export: ExportArgs, maker: Experiment, where: Located) -> Problem | None:
    """Return why an export gets no adapter that it can merge; what a program leaves is not known."""
    args = maker.args
    if maker.export is not None and maker.export.quant_bits and export.quant_bits:
        return where.problem(f"{maker.name!r} has quantised its model already", hint="take the model that it takes")
    if args is None or maker.cmd == "command" or (maker.cmd in TRAININGS and args.merges):
        return None
    if maker.cmd in TRAININGS and (args.is_peft_method or args.tuner == "adapter"):
        message = f"what sft_type {args.sft_type} of {maker.name!r} trains cannot be merged"
        return where.problem(message, hint="leave the export out, and evaluate the training")
    if export.quant_bits and not export.merge_lora:
        return None
    message = f"{maker.name!r} makes a whole model, which holds no adapter to merge"
    return where.problem(message, hint="set quant_bits and leave merge_lora out, or leave the export out")
