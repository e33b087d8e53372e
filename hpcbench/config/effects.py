"""Arguments that do nothing with the others: an experiment that names one would be a row that says what did not run.

In: the arguments of an experiment, and where each was written. Out: those without an effect, and what they need (pure).
A value that is the default asks for nothing, and one beside its switch, written as off, was switched off on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from hpcbench.catalog.peft_methods import peft_methods
from hpcbench.errors import Problem
from hpcbench.schemas.arguments import QUANTIZABLE, EvalArgs, SftArgs
from hpcbench.schemas.optimizers import SCHEDULERS, WITHOUT_BETAS, WITHOUT_EPSILON
from hpcbench.schemas.request import TRAININGS, Command
from hpcbench.schemas.tuners import needs_method, peft_arguments
from hpcbench.storage.located_yaml import Located


@dataclass(frozen=True, slots=True, kw_only=True)
class _Effect:
    """When arguments have an effect."""

    names: tuple[str, ...]
    needs: str
    """What they need, as it is written in a suite."""
    holds: Callable[[SftArgs], bool]
    switch: str | None = None
    """The argument that switches them all on and off."""


def _family(prefix: str) -> tuple[str, ...]:
    return tuple(name for name in SftArgs.model_fields if name.startswith(prefix))


def _of_tuners(*tuners: str) -> Callable[[SftArgs], bool]:
    return lambda args: args.tuner in tuners


_LORA = ("lora_alpha", "lora_dropout_p")
_OF_OTHERS_TOO = (*_LORA, "lora_target_modules", "lora_modules_to_save", "lora_dtype")
_FREEZING = (
    *("freeze_parameters", "freeze_parameters_regex", "freeze_parameters_ratio"),
    *("trainable_parameters", "trainable_parameters_regex"),
)
_Q_GALORE = ("galore_cos_threshold", "galore_gamma_proj", "galore_queue_size")


def _of_losses(*kinds: str) -> Callable[[SftArgs], bool]:
    return lambda args: args.rlhf_type in kinds


_REFERENCE = ("ref_model_id_or_path", "ref_model_type", "ref_adapters")
_ONE_LOSS = {
    **dict.fromkeys(("ref_model_free", "sft_beta", "rpo_alpha", "ld_alpha"), ("dpo",)),
    **dict.fromkeys(_REFERENCE, ("dpo", "kto")),
    "simpo_gamma": ("simpo",),
    "cpo_alpha": ("cpo", "simpo"),
    **dict.fromkeys(("desirable_weight", "undesirable_weight"), ("kto",)),
}
"""Arguments of losses -> the values of `rlhf_type` that they have an effect with."""

_OF_SWITCHES = {
    "use_liger_kernel": ("liger_kernel_config",),
    "torch_compile": ("torch_compile_backend", "torch_compile_mode"),
    "chunked_cross_entropy": ("chunked_cross_entropy_num_chunks",),
}
"""Switches -> the arguments that do nothing without them."""

EFFECTS = (
    _Effect(
        names=("beta", "loss_type", "max_prompt_length"),
        needs="cmd: rlhf",
        holds=lambda args: args.rlhf_type is not None,
    ),
    *(
        _Effect(names=(name,), needs=f"rlhf_type: {' or '.join(kinds)}", holds=_of_losses(*kinds))
        for name, kinds in _ONE_LOSS.items()
    ),
    _Effect(
        names=("loss_weights",),
        needs="several values of loss_type",
        holds=lambda args: len(args.loss_type) > 1,
    ),
    _Effect(
        names=("label_smoothing",),
        needs="a loss_type with a place for it: robust, exo_pair, aot or aot_unpaired of dpo, sigmoid of cpo, simpo",
        holds=lambda args: args.uses_label_smoothing,
    ),
    _Effect(
        names=("discopop_tau",),
        needs="loss_type: discopop",
        holds=lambda args: "discopop" in args.loss_type,
    ),
    _Effect(names=(*_LORA, "lora_dtype"), needs="sft_type: lora or adalora", holds=_of_tuners("lora", "adalora")),
    _Effect(
        names=("lora_target_modules", "target_regex"),
        needs="sft_type: lora, adalora, or another method of peft for linear layers",
        holds=lambda args: args.takes_targets,
    ),
    _Effect(
        names=("lora_modules_to_save",),
        needs="sft_type: lora, ia3, or another method of peft that saves modules",
        holds=lambda args: args.saves_modules,
    ),
    _Effect(
        names=(
            *(name for name in _family("lora_") if name not in _OF_OTHERS_TOO),
            *("use_dora", "use_rslora", "use_qalora"),
        ),
        needs="sft_type: lora",
        holds=_of_tuners("lora"),
    ),
    _Effect(
        names=("init_lora_weights", "target_parameters", "use_swift_lora"),
        needs="sft_type: lora",
        holds=_of_tuners("lora"),
    ),
    _Effect(
        names=("qalora_group_size",),
        needs="use_qalora: true",
        holds=lambda args: args.use_qalora,
        switch="use_qalora",
    ),
    _Effect(names=_FREEZING, needs="sft_type: full, without lisa", holds=_of_tuners("full", "galore")),
    _Effect(names=("peft_config",), needs="an sft_type of peft", holds=lambda args: args.sft_type in peft_methods()),
    *(
        _Effect(names=_family(f"{tuner}_"), needs=f"sft_type: {tuner}", holds=_of_tuners(tuner))
        for tuner in ("adalora", "adapter", "ia3", "llamapro", "lisa")
    ),
    _Effect(
        names=_family("galore_"),
        needs="use_galore: true",
        holds=lambda args: args.use_galore,
        switch="use_galore",
    ),
    _Effect(
        names=("galore_proj_bits", "galore_proj_group_size"),
        needs="galore_proj_quant: true",
        holds=lambda args: args.galore_proj_quant,
        switch="galore_proj_quant",
    ),
    _Effect(
        names=_Q_GALORE,
        needs="galore_quantization: true or galore_proj_quant: true",
        holds=lambda args: args.galore_quantization or args.galore_proj_quant,
    ),
    _Effect(
        names=_family("bnb_4bit_"),
        needs="quantization_bit: 4",
        holds=lambda args: args.quantization_bit == 4,  # noqa: PLR2004  # bits
        switch="quantization_bit",
    ),
    _Effect(
        names=(
            *("max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "repetition_penalty"),
            *("num_beams", "stop_words"),
        ),
        needs="predict_with_generate: true",
        holds=lambda args: args.predict_with_generate,
        switch="predict_with_generate",
    ),
    _Effect(
        names=("hub", "hub_model_id", "hub_private_repo", "push_hub_strategy"),
        needs="push_to_hub: true",
        holds=lambda args: args.push_to_hub,
        switch="push_to_hub",
    ),
    _Effect(
        names=("train_dataset_mix_ds",),
        needs="train_dataset_mix_ratio above 0",
        holds=lambda args: args.train_dataset_mix_ratio > 0,
        switch="train_dataset_mix_ratio",
    ),
    _Effect(
        names=("model_revision",),
        needs="a model of a hub, not a folder",
        holds=lambda args: not (args.model_id_or_path or "").startswith("/"),
    ),
    _Effect(
        names=("packing_length", "packing_strategy"),
        needs="packing: true",
        holds=lambda args: args.packing,
        switch="packing",
    ),
    *(
        _Effect(
            names=names, needs=f"{switch}: true", holds=attrgetter(switch), switch=switch,
        )
        for switch, names in _OF_SWITCHES.items()
    ),
    _Effect(
        names=("dataset_test_ratio",), needs="no val_dataset, beside which nothing is split off",
        holds=lambda args: not args.val_dataset, switch="dataset_test_ratio",
    ),
    _Effect(
        names=("warmup_ratio", "warmup_steps"),
        needs="an lr_scheduler_type with a warm-up, such as constant_with_warmup",
        holds=lambda args: args.lr_scheduler_type != "constant",
        switch="warmup_ratio",
    ),
    _Effect(names=("warmup_ratio",), needs="warmup_steps: 0", holds=lambda args: args.warmup_steps == 0),
    _Effect(
        names=("min_lr",),
        needs="lr_scheduler_type: cosine",
        holds=lambda args: "min_lr" in SCHEDULERS.get(args.schedule[0], ("min_lr",)),
    ),
    _Effect(
        names=("adam_beta1", "adam_beta2"),
        needs="an optim of Adam's family, such as adamw_torch",
        holds=lambda args: args.optim not in WITHOUT_BETAS,
    ),
    _Effect(
        names=("adam_epsilon",),
        needs="an optim of Adam's family, such as adamw_torch",
        holds=lambda args: args.optim not in WITHOUT_EPSILON,
    ),
    _Effect(
        names=("eval_steps",),
        needs="eval_strategy: steps",
        # Checkpoints without an interval of their own are written every eval_steps too.
        holds=lambda args: args.eval_strategy == "steps" or (args.save_strategy == "steps" and args.save_steps is None),
    ),
    _Effect(names=("save_steps",), needs="save_strategy: steps", holds=lambda args: args.save_strategy == "steps"),
    _Effect(
        names=("dataloader_prefetch_factor", "dataloader_persistent_workers"),
        needs="dataloader_num_workers: 1 or more",
        holds=lambda args: args.dataloader_num_workers > 0,
        switch="dataloader_num_workers",
    ),
)  # fmt: skip
"""Of the arguments of a training all that need others; those without an entry always have an effect."""

_OF_ARGUMENT = {name: tuple(effect for effect in EFFECTS if name in effect.names) for name in SftArgs.model_fields}


def has_effect(args: SftArgs, name: str) -> bool:
    """Return whether an argument of a training can change anything beside its others."""
    return all(effect.holds(args) for effect in _OF_ARGUMENT[name])


@dataclass(slots=True)
class Effects:
    """Which arguments of a suite's layers had an effect in some experiment, and which in none."""

    idle: dict[tuple[str, str], Problem] = field(default_factory=dict)
    """Layer and argument -> what is reported where no experiment has an effect of it."""
    used: set[tuple[str, str]] = field(default_factory=set)

    def check(
        self, args: SftArgs, given: Mapping[str, Located], taken: Iterable[tuple[str, Located]] = ()
    ) -> list[Problem]:
        """Return what an experiment names for itself without an effect; what all share is kept for `finish`.

        Args:
            args: of the experiment.
            given: as they were written.
            taken: what was written too and went into `peft_config`.
        """
        self.used.update((value.source, name) for name, value in taken)
        idle = dict(find_idle(args, given))
        problems = []
        for name, value in given.items():
            key = (value.source, name)
            if name not in idle:
                self.used.add(key)
            elif not self.keep(name, value, _no_effect(value, name, idle[name], where=" in any experiment")):
                problems.append(_no_effect(value, name, idle[name]))
        return problems

    def keep(self, name: str, value: Located, problem: Problem) -> bool:
        """Keep the problem for `finish` if all experiments share the argument; return whether they do."""
        if value.source not in {"suite", "--set"}:
            return False
        self.idle.setdefault((value.source, name), problem)
        return True

    def use(self, given: Mapping[str, Located], names: Iterable[str]) -> None:
        """Note what an experiment takes of these by its command, such as the sampling of `cmd: infer`."""
        self.used.update((given[name].source, name) for name in names if name in given)

    def finish(self) -> list[Problem]:
        """Return what all experiments share and none has an effect of."""
        return [problem for key, problem in self.idle.items() if key not in self.used]


def find_idle(args: SftArgs, given: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the written arguments that have no effect, each with what it needs."""
    written = set(given)
    of_peft = peft_arguments()
    # A field of the experiment's own method is in `peft_config` by now.
    yield from (
        (name, needs_method(of_peft[name])) for name in given if name not in type(args).model_fields and name in of_peft
    )
    for effect in EFFECTS:
        if effect.holds(args) or (effect.switch in written and not getattr(args, effect.switch or "")):
            continue
        for name in effect.names:
            if name in written and args.differs_from_default(name):
                yield name, effect.needs


def _no_effect(value: Located, name: str, needs: str, *, where: str = "") -> Problem:
    return value.problem(f"`{name}` has no effect{where}", expected=needs, hint="remove it where it has none")


def check_eval_effects(
    cmd: Command, args: SftArgs | None, evals: Iterable[EvalArgs], given: Mapping[str, Located], *, at: Located
) -> list[Problem]:
    """Return what evals are asked for and cannot do, or what an experiment names for itself without an effect."""
    problems = []
    tuner = args.tuner if args is not None and cmd in TRAININGS else None
    merges = args is not None and cmd in TRAININGS and args.merges
    if any(eval_args.merge_lora for eval_args in evals) and cmd != "command" and not merges:
        where = given.get("merge_lora", at)
        # Its weights are none of peft's, so the job would fail; for the others there is nothing to merge.
        if args is not None and (tuner == "adapter" or args.is_peft_method):
            message = f"`merge_lora`: what sft_type {args.sft_type} trains cannot be merged"
            problems.append(at.problem(message, hint="set eval_args.merge_lora: false"))
        elif where.source in {"experiment", "matrix"}:
            problems.append(_no_effect(where, "merge_lora", f"sft_type: {', '.join(QUANTIZABLE)}"))
    return problems
