"""Requests that cannot work, found before anything waits in a queue; nothing is checked against the cluster here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from hpcbench.catalog.agents import AGENT_FORMATS
from hpcbench.catalog.models import MODELS, TEMPLATES
from hpcbench.config.catalog_checks import check_model_entry
from hpcbench.config.speed_checks import check_attention, check_speed
from hpcbench.config.training_checks import check_training
from hpcbench.errors import Problem, did_you_mean, name_first
from hpcbench.hub.repository import REPOSITORY_RULE, repository_error, repository_of
from hpcbench.schemas.arguments import EvalArgs, SftArgs
from hpcbench.schemas.optimizers import OPTIMIZERS, REFUSED_OPTIMIZERS, REFUSED_SCHEDULERS, SCHEDULERS
from hpcbench.schemas.request import TRAININGS, Command, Device, Resources
from hpcbench.storage.located_yaml import Located, shorten

_WORD = re.compile(r"[\w.,@+=-]+")
_WORD_RULE = "letters, digits and . , _ @ + = -"
_MEMORY = re.compile(r"\d+(\.\d+)?([KMGT]i?B)")
_NODES = re.compile(r"[\w.,\[\]-]+")
_NODES_RULE = "node names as Slurm writes them, for example node3,node[7-9]"
"""Of what a suite says, these words alone stand in the batch script."""


def check_resources(
    resources: Resources,
    given: Mapping[str, Located],
    *,
    at: Located,
    section: str,
    device: Device,
    needs_gpu: bool,
    spreads: bool = False,
) -> list[Problem]:
    """Return what is impossible about one resource request.

    Args:
        resources: the request.
        given: as they were written.
        at: the experiment's entry.
        section: of the suite, which they were written in.
        device: of the job.
        needs_gpu: whether hpcbench's own worker runs.
        spreads: whether each of several ranks may spread a model over several GPUs.
    """
    found: list[tuple[tuple[str, ...], str, str | None]] = []
    gpu, ddp, nodes = resources.gpu, resources.ddp, resources.nodes
    if device == "cpu" and gpu:
        found.append((("gpu", "device"), f"{gpu} GPUs with `device: cpu`, which would leave them idle", "gpu: 0"))
    if device == "cuda" and gpu == 0 and needs_gpu:
        found.append(
            (("gpu", "device"), "no GPU with `device: cuda`", "gpu: 1, or `device: cpu` beside `requirements`")
        )
    if device == "cuda" and gpu:
        if ddp > gpu:
            found.append((("ddp", "gpu"), f"ddp {ddp} is more than gpu {gpu}", "at least one GPU per rank"))
        elif gpu % ddp:
            found.append((("ddp", "gpu"), f"gpu {gpu} cannot be shared out to ddp {ddp}", "gpu a multiple of ddp"))
        elif needs_gpu and not spreads and 1 < ddp < gpu:
            text = f"{gpu} GPUs for ddp {ddp}: a model on several GPUs is for one rank"
            found.append((("ddp", "gpu"), text, f"ddp: {gpu}, a model on each, or ddp: 1, one model over all of them"))
        if gpu % nodes:
            found.append(
                (("nodes", "gpu"), f"gpu {gpu} cannot be shared out to {nodes} nodes", "gpu a multiple of nodes")
            )
    if ddp % nodes:
        found.append((("nodes", "ddp"), f"ddp {ddp} cannot be shared out to {nodes} nodes", "ddp a multiple of nodes"))
    for key, word, pattern, rule in (
        ("partition", resources.partition, _WORD, _WORD_RULE),
        ("gpu_type", resources.gpu_type, _WORD, _WORD_RULE),
        ("exclude", resources.exclude, _NODES, _NODES_RULE),
    ):
        # What evals take from `requirements` is complained about there.
        if word is not None and key in given and pattern.fullmatch(word) is None:
            found.append(((key,), f"got {shorten(repr(word))}", rule))
    return [_complain(given, keys, section, at).problem(text, expected=expected) for keys, text, expected in found]


def check_memory_per_gpu(
    args: SftArgs | None, resources: Resources, given: Mapping[str, Located], *, at: Located
) -> list[Problem]:
    """Return what is wrong with the memory that layers may take on each GPU of a rank."""
    if args is None or not args.device_max_memory:
        return []
    where = given.get("device_max_memory", at)
    if wrong := [size for size in args.device_max_memory if _MEMORY.fullmatch(size) is None]:
        return [where.problem(f"got {shorten(repr(wrong[0]))}", expected="sizes such as 20GiB")]
    gpus_each = resources.gpu // resources.ddp
    if gpus_each < 2:  # noqa: PLR2004  # of one GPU all may be taken
        message = "`device_max_memory` spreads layers over the GPUs of a rank, and each rank has one at most"
        return [where.problem(message, hint="set requirements.gpu: 2 or more with ddp: 1, or remove it")]
    if len(args.device_max_memory) != gpus_each:
        message = f"{len(args.device_max_memory)} sizes for {gpus_each} GPUs"
        return [where.problem(message, expected=f"{gpus_each} sizes")]
    return []


def check_eval_ranks(
    resources: Resources, evals: Mapping[str, EvalArgs], given: Mapping[str, Located], *, at: Located
) -> list[Problem]:
    """Return the eval datasets whose documents are fewer than the ranks that share them."""
    few = [name for name, args in evals.items() if args.limit is not None and args.limit < resources.ddp]
    if not few:
        return []
    where = _complain(given, ("ddp",), "eval_requirements", at)
    limit = evals[few[0]].limit
    text = f"ddp {resources.ddp} with limit {limit} for {name_first(few)}: each rank needs a document of each task"
    return [where.problem(text, expected=f"ddp: {limit} at most, or a higher limit")]


def check_together(
    resources: Resources,
    evals: Mapping[str, EvalArgs],
    given: Mapping[str, Located],
    *,
    requirements: Mapping[str, Located],
    at: Located,
) -> list[Problem]:
    """Return why evals with `together` cannot share a job and a loaded model.

    `given` is the experiment's `eval_args`, `requirements` its `eval_requirements`.
    """
    sharing = [name for name, args in evals.items() if args.together]
    programs = [name for name in sharing if evals[name].command]
    found = []
    if programs:
        message = f"`together`: {name_first(programs)} has a `command`, which loads its model itself"
        hint = f"eval_args: {{per_dataset: {{{programs[0]}: {{together: false}}}}}}"
        found.append(given.get("together", at).problem(message, hint=hint))
    elif sharing and resources.nodes > 1:
        where = _complain(requirements, ("nodes",), "eval_requirements", at)
        message = f"nodes {resources.nodes} with eval_args.together: evals that share a job run on one node"
        found.append(where.problem(message, expected="nodes: 1", hint="set eval_args.together: false"))
    return found


def _complain(given: Mapping[str, Located], keys: tuple[str, ...], section: str, at: Located) -> Located:
    """Return the place to complain at: the key of the latest layer, else the experiment."""
    order = ("suite", "experiment", "matrix", "--set")
    written = [given[key] for key in keys if key in given]
    if written:
        return max(written, key=lambda entry: order.index(entry.source))
    return Located(value=None, file=at.file, line=at.line, path=f"{at.path}.{section}", source=at.source)


def check_args(
    args: SftArgs, given: Mapping[str, Located], *, at: Located, cmd: Command, device: Device, has_evals: bool
) -> list[Problem]:
    """Return what contradicts itself in the training arguments."""
    found: list[Problem] = []

    def at_key(name: str) -> Located:
        return given.get(name, at)

    if device == "cpu" and args.dtype == "fp16":
        found.append(at_key("dtype").problem("fp16 does not train on the CPU", expected="bf16 or fp32"))
    if device == "cpu" and args.ddp_backend == "nccl":
        found.append(at_key("ddp_backend").problem("nccl needs GPUs", expected="gloo"))
    if device == "cpu" and args.gpu_memory_fraction is not None:
        message = "`gpu_memory_fraction` with `device: cpu`, which has no GPU memory"
        found.append(at_key("gpu_memory_fraction").problem(message, hint="remove it"))
    if cmd != "command":
        found += _check_catalog(args, at_key) + check_attention(args, at_key, device=device)
        found += check_model_entry(args, at_key)
    if cmd not in TRAININGS:
        return found
    if not args.dataset:
        hint = "args: {dataset: train.jsonl}"
        found.append(at_key("dataset").problem("no dataset to train on", expected="`args.dataset`", hint=hint))
    if args.save_strategy == "no" and has_evals:
        message = "`save_strategy: no` leaves no checkpoint for `eval_dataset` to evaluate"
        found.append(
            at_key("save_strategy").problem(message, hint="remove one of them; `eval_dataset: []` switches evals off")
        )
    targets, inputs = set(args.ia3_target_modules), set(args.ia3_feedforward_modules)
    if args.tuner == "ia3" and "DEFAULT" not in targets and not inputs <= targets:
        message = "`ia3_feedforward_modules` must be among `ia3_target_modules`"
        found.append(at_key("ia3_feedforward_modules").problem(message, hint="name them in both"))
    if args.max_steps == 0:
        hint = "leave it out to train for num_train_epochs; `cmd: eval` evaluates the untrained model"
        message = "`max_steps: 0` trains nothing"
        found.append(at_key("max_steps").problem(message, expected="1 or more, or -1", hint=hint))
    if args.train_dataset_mix_ratio > 0 and not args.train_dataset_mix_ds:
        message = "`train_dataset_mix_ratio` with no dataset to mix in"
        found.append(at_key("train_dataset_mix_ratio").problem(message, expected="`train_dataset_mix_ds`"))
    found += check_training(args, at_key, has_validation=has_validation(args))
    found += check_speed(args, at_key, device=device)
    return found + _check_words(args, at_key) + _check_push(args, at_key)


def _check_words(args: SftArgs, at_key: Callable[[str], Located]) -> list[Problem]:
    """Return the names that transformers does not have, or that cannot be used here."""
    found: list[Problem] = []
    words = (
        ("optim", args.optim, OPTIMIZERS, REFUSED_OPTIMIZERS),
        ("lr_scheduler_type", args.lr_scheduler_type, SCHEDULERS, REFUSED_SCHEDULERS),
    )
    for name, word, known, refused in words:
        if word in refused:
            reason, instead = refused[word]
            found.append(at_key(name).problem(f"{word!r} cannot be used: {reason}", hint=instead))
        elif word not in known:
            message, hint = f"unknown {name} {shorten(repr(word))}", did_you_mean(word, known)
            found.append(at_key(name).problem(message, expected=", ".join(sorted(known)), hint=hint))
    return found


def _check_push(args: SftArgs, at_key: Callable[[str], Located]) -> list[Problem]:
    found: list[Problem] = []
    if args.push_to_hub and args.save_strategy == "no":
        found.append(at_key("push_to_hub").problem("`save_strategy: no` leaves no weights to push", hint="remove one"))
    if args.push_to_hub and (error := repository_error(repository_of(args))) is not None:
        found.append(at_key("hub_model_id").problem(error, expected=REPOSITORY_RULE))
    return found


def _check_catalog(args: SftArgs, at_key: Callable[[str], Located]) -> list[Problem]:
    """Return the names that should be in the catalog and are not."""
    found: list[Problem] = []
    entry = None if args.model_type is None else MODELS.lookup(args.model_type)
    if args.model_type is not None and args.model_id_or_path is None and entry is None:
        hint = did_you_mean(args.model_type, MODELS.names()) or "give model_id_or_path: a hub id or a folder"
        message = f"no model {shorten(repr(args.model_type))} in the catalog"
        found.append(at_key("model_type").problem(message, expected="a model of the catalog", hint=hint))
    if args.template_type is not None and TEMPLATES.lookup(args.template_type) is None:
        hint = did_you_mean(args.template_type, TEMPLATES.names()) or "leave it out to take the tokenizer's own"
        message = f"no chat template {shorten(repr(args.template_type))} in the catalog"
        found.append(at_key("template_type").problem(message, expected=", ".join(TEMPLATES.names()), hint=hint))
    if AGENT_FORMATS.lookup(args.agent_template) is None:
        message = f"no agent template {shorten(repr(args.agent_template))} in the catalog"
        found.append(at_key("agent_template").problem(message, expected=", ".join(AGENT_FORMATS.names())))
    if args.lazy_tokenize and args.truncation_strategy == "delete":
        message = "`lazy_tokenize` with `truncation_strategy: delete`: which rows it drops is not known before training"
        found.append(at_key("lazy_tokenize").problem(message, expected="truncation_strategy: truncation_left"))
    return found


def has_validation(args: SftArgs) -> bool:
    """Return whether there is a validation split to compute eval_loss on."""
    has_rows = (bool(args.val_dataset) or args.dataset_test_ratio > 0) and args.val_dataset_sample != 0
    return has_rows and args.eval_strategy != "no"
