"""One experiment out of its merged layers: typed, its files found, its requests checked.

Disk is touched only through `SuitePlace`; nothing is expanded here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from hpcbench.config.aliases import HINTS_OF_OTHERS, UNSUPPORTED_TUNERS, asks_for_nothing
from hpcbench.config.checkpoint_arguments import CKPT_DIR
from hpcbench.config.command_arguments import name_bits, name_merge, own_values
from hpcbench.config.commands import read_cmd, read_framework
from hpcbench.config.effects import check_eval_effects
from hpcbench.config.eval_entries import EvalEntry, read_entries, read_overrides
from hpcbench.config.export_checks import check_export_request, fill_in_model, find_unread
from hpcbench.config.framework_checks import check_framework
from hpcbench.config.infer_checks import READ_ARGUMENTS, InferRequest, check_infer, fill_in
from hpcbench.config.layers import OWN_ARGUMENTS, PER_DATASET, Layer
from hpcbench.config.local_inputs import SuitePlace
from hpcbench.config.model_checks import check_exported_model, check_model_files, find_chat_template
from hpcbench.config.names import eval_name_error
from hpcbench.config.parallel_checks import check_parallel
from hpcbench.config.peft_fields import gather_fields
from hpcbench.config.request_checks import (
    check_args,
    check_eval_ranks,
    check_memory_per_gpu,
    check_resources,
    check_together,
    has_validation,
)
from hpcbench.config.typed_fields import build, take_count, take_text
from hpcbench.config.unsloth_checks import check_unsloth
from hpcbench.errors import Problem, did_you_mean
from hpcbench.hub.repository import TOKEN_VARIABLES
from hpcbench.schemas.arguments import (
    EVAL_LOSS_ONLY,
    Arguments,
    CommandArgs,
    EvalArgs,
    ExportArgs,
    FrameworkArgs,
    InferArgs,
    SftArgs,
)
from hpcbench.schemas.durations import FORMS, LONGEST_MIN, parse_minutes
from hpcbench.schemas.request import TRAININGS, Command, Device, Resources
from hpcbench.schemas.suite import Experiment
from hpcbench.schemas.tuners import list_sft_types, peft_arguments
from hpcbench.storage.located_yaml import Located, show, to_plain

DEVICES: tuple[Device, ...] = ("cuda", "cpu")
GroupT = TypeVar("GroupT", bound=Arguments)


DEFAULT_MAX_ATTEMPTS = 10
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_ENV_OF_THE_JOB = frozenset(
    {"CUDA_VISIBLE_DEVICES", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
)


@dataclass(slots=True, kw_only=True)
class ExperimentBuilder:
    """Builds one experiment and collects its problems."""

    place: SuitePlace
    at: Located
    """The experiment's entry in the file."""
    layer: Layer
    problems: list[Problem]

    def build(self, name: str) -> Experiment | None:
        """Return the experiment, or None with the reasons in `problems`."""
        before = len(self.problems)
        written = self.layer.section("args")
        self._put_args(gather_fields(written, self.problems))
        cmd = read_cmd(self.layer, at=self.at, problems=self.problems)
        device = self._device()
        if cmd is None or device is None:
            return None
        self._put_args(name_merge(cmd, name_bits(cmd, self.layer.section("args")), self.problems))
        if cmd in {"infer", "export"}:
            self._open_checkpoint(cmd)
        entries = read_entries(self.layer.values.get("eval_dataset"), self.problems)
        evals = tuple(entry.name for entry in entries)
        eval_args = self._eval_args(entries)
        command = self._command(cmd)
        export = self._own_args(ExportArgs) if cmd == "export" else None
        infer = self._own_args(InferArgs) if cmd == "infer" else None
        framework = read_framework(self.layer)
        framework_args = None if framework is None else self._own_args(FrameworkArgs)
        # A baseline reads no rows, unless its loss is asked for.
        reads_rows = cmd != "eval" or any(each.eval_loss for each in eval_args.values())
        args = self._args(cmd, reads_rows=reads_rows)
        requirements, eval_requirements = (self._resources(f"{of}requirements", device) for of in ("", "eval_"))
        env, info, max_attempts = self._env(), self._info(), self._max_attempts()
        if cmd == "eval" and not evals and eval_args.get(EVAL_LOSS_ONLY, EvalArgs()).eval_loss:
            evals = (EVAL_LOSS_ONLY,)
        if args is not None:
            self._check_args(
                cmd,
                args,
                written=written,
                requirements=requirements,
                device=device,
                env=env,
                evals=eval_args,
                has_evals=bool(evals),
            )
        if args is not None and framework is not None:
            self.problems += check_framework(
                framework, args, extra=framework_args, resources=requirements, device=device, at_key=self._find_key
            )
        if args is not None and infer is not None:
            asked = InferRequest(infer=infer, given=self.layer.section("args"), at=self.at)
            person = self.place.has_person
            self.problems += check_infer(
                asked, args, requirements=requirements, device=device, has_evals=bool(evals), has_person=person
            )
        if export is not None:
            self._check_export(export, args, requirements, env)
        self._check_evals(cmd, evals, eval_args, args, command)
        self.problems += check_eval_effects(cmd, args, eval_args.values(), self.layer.section("eval_args"), at=self.at)
        if cmd != "eval" and requirements is not None:
            self._check_requirements(cmd, args, requirements, device)
        if evals and eval_requirements is not None:
            of_evals = {dataset: eval_args[dataset] for dataset in evals if dataset in eval_args}
            self._check_eval_requirements(of_evals, eval_requirements, device)
        if len(self.problems) > before or requirements is None or eval_requirements is None:
            return None
        return Experiment(
            suite=self.place.name,
            name=name,
            cmd=cmd,
            device=device,
            requirements=requirements,
            eval_requirements=eval_requirements,
            eval_dataset=evals,
            eval_args={dataset: eval_args[dataset] for dataset in evals},
            args=args,
            command=command,
            export=export,
            infer=infer,
            framework=framework,
            framework_args=framework_args,
            env=env,
            info=info,
            max_attempts=max_attempts,
            source_of=self._sources(args, command, export, infer, framework_args),
            line=self.at.line,
        )

    def _check_requirements(self, cmd: Command, args: SftArgs | None, requirements: Resources, device: Device) -> None:
        needs_gpu, spreads = cmd != "command", cmd in TRAININGS
        self._check_request("requirements", requirements, device, needs_gpu=needs_gpu, spreads=spreads)
        self.problems += check_memory_per_gpu(args, requirements, self.layer.section("args"), at=self.at)

    def _check_eval_requirements(self, asked: Mapping[str, EvalArgs], requirements: Resources, device: Device) -> None:
        given, mine = self.layer.section("eval_requirements"), self.layer.section("eval_args")
        by_worker = {dataset: each for dataset, each in asked.items() if not each.command}
        self._check_request("eval_requirements", requirements, device, needs_gpu=True)
        self.problems += check_eval_ranks(requirements, by_worker, given, at=self.at)
        self.problems += check_together(requirements, asked, mine, requirements=given, at=self.at)

    def _find_key(self, section: str, name: str) -> Located:
        """Return where a key of a section is written, or one beside the sections; else the experiment."""
        entries = self.layer.section(section) if section else self.layer.values
        return entries.get(name, self.at)

    def _put_args(self, args: Mapping[str, Located]) -> None:
        self.layer = replace(self.layer, sections={**self.layer.sections, "args": args})

    def _check_args(
        self,
        cmd: Command,
        args: SftArgs,
        *,
        written: Mapping[str, Located],
        requirements: Resources | None,
        device: Device,
        env: Mapping[str, str],
        evals: Mapping[str, EvalArgs],
        has_evals: bool,
    ) -> None:
        """Report what contradicts itself, has no effect, or does not fit the model's files."""
        mine = self.layer.section("args")
        others = {name for group in OWN_ARGUMENTS.values() for name in group.model_fields} - SftArgs.model_fields.keys()
        given = {name: entry for name, entry in mine.items() if name not in others}
        self.problems += check_args(args, given, at=self.at, cmd=cmd, device=device, has_evals=has_evals)
        if cmd in TRAININGS:
            taken = ((name, value) for name, value in written.items() if name not in mine)
            self.problems += self.place.effects.check(args, given, taken)
            self.problems += check_unsloth(args, requirements, lambda name: given.get(name, self.at))
        if cmd in TRAININGS and requirements is not None:
            self.problems += check_parallel(args, requirements, lambda name: given.get(name, self.at), device=device)
        if cmd == "infer":
            self.place.effects.use(given, READ_ARGUMENTS)
        if cmd == "command":
            return
        self.problems += check_model_files(
            self.place.models,
            args,
            given,
            at=self.at,
            env=env,
            trains=cmd in TRAININGS,
            has_chats=cmd not in TRAININGS or self.place.datasets.has_chats(args),
            evals=evals,
            eval_given=self.layer.section("eval_args"),
        )
        template = find_chat_template(self.place.models, args, env)
        asks = cmd == "infer"
        self.problems += self.place.datasets.check_tools(args, given, at=self.at, template=template, asks=asks)

    def _device(self) -> Device | None:
        value = self.layer.values.get("device")
        if value is None:
            return "cuda"
        if value.value in DEVICES:
            return value.value
        hint = did_you_mean(str(value.value), DEVICES) or ("did you mean 'cuda'?" if value.value == "gpu" else None)
        self.problems.append(value.problem(f"unknown device {show(value)}", expected=", ".join(DEVICES), hint=hint))
        return None

    def _eval_args(self, entries: tuple[EvalEntry, ...]) -> dict[str, EvalArgs]:
        """Return the arguments of each eval dataset; without any, those of an eval_loss alone."""
        common = dict(self.layer.section("eval_args"))
        overrides = common.pop(PER_DATASET, None)
        if "task" in common:
            hint = "eval_dataset: [{name: gsm8k_1shot, task: gsm8k, num_fewshot: 1}]"
            self.problems.append(common.pop("task").problem("`task` is of one eval dataset, not of all", hint=hint))
        by_name = read_overrides(overrides, self.problems)
        found: dict[str, EvalArgs] = {}
        for entry in entries or (EvalEntry(name=EVAL_LOSS_ONLY, at=self.at),):
            given = {**common, **entry.given, **by_name.get(entry.name, {})}
            given = {key: value for key, value in given.items() if value.value is not None}
            if "include_path" in given:
                given["include_path"] = self.place.localise_folders(given["include_path"], self.problems)
            if "local_data" in given:
                before = len(self.problems)
                given["local_data"] = self.place.localise_splits(given["local_data"], self.problems)
                if len(self.problems) > before:  # what is wrong with it is said
                    del given["local_data"]
            if "command" in given:
                given["command"] = self._split(given["command"])
            if (built := build(EvalArgs, given, at=self.at, problems=self.problems)) is not None:
                found[entry.name] = built
        return found

    def _args(self, cmd: Command, *, reads_rows: bool) -> SftArgs | None:
        """Return the training arguments; a command needs them only where a model is named."""
        # A name that both have means another thing there: quant_method is how an export quantises.
        names = SftArgs.model_fields.keys() - self._own_names(cmd)
        given = {name: value for name, value in self.layer.section("args").items() if name in names}
        if cmd == "command" and not {"model_type", "model_id_or_path"} & given.keys():
            return None
        if self._names_bits_of_base(cmd):
            given.setdefault("quantization_bit", self.layer.section("args")["quant_bits"])
        before = len(self.problems)
        self._refuse_tuners(given)
        self._refuse_others(cmd)
        given = self.place.localise_args(given, self.problems)
        word = self.layer.values["cmd"].value
        extra = own_values(cmd, str(word), given, self.problems)
        args = build(SftArgs, given, at=self.at, problems=self.problems, extra=extra)
        if args is not None and cmd != "command" and reads_rows and len(self.problems) == before:
            self.problems += self.place.datasets.check(args, given, at=self.at, asks=cmd == "infer")
        return args if len(self.problems) == before else None

    def _names_bits_of_base(self, cmd: Command) -> bool:
        """Return whether `quant_bits` is ms-swift 4's name of quantization_bit, as for all commands but export."""
        bits = self.layer.section("args").get("quant_bits")
        return cmd != "export" and bits is not None and str(bits.value) in {"0", "4", "8"}

    def _own_names(self, cmd: Command) -> AbstractSet[str]:
        """Return the arguments that this command alone has, or this framework."""
        group = OWN_ARGUMENTS.get(read_framework(self.layer) or cmd)
        return frozenset() if group is None else group.model_fields.keys()

    def _refuse_others(self, cmd: Command) -> None:
        """Report arguments that only other commands have."""
        own = self._own_names(cmd)
        self.place.effects.use(self.layer.section("args"), own)
        for name, entry in self.layer.section("args").items():
            if name in SftArgs.model_fields or name in own or name in peft_arguments():
                continue
            if name == "quant_bits" and self._names_bits_of_base(cmd):
                continue
            groups = {other: group for other, group in OWN_ARGUMENTS.items() if name in group.model_fields}
            default = next(iter(groups.values())).model_fields[name].get_default(call_default_factory=True)
            if not asks_for_nothing(name, entry, default=default):
                others = " and ".join(f"`cmd: {other}`" for other in groups)
                hint = HINTS_OF_OTHERS.get(name, "remove it here")
                problem = entry.problem(f"`{name}` is only for {others}", hint=hint)
                if name in HINTS_OF_OTHERS or not self.place.effects.keep(name, entry, problem):
                    self.problems.append(problem)

    def _open_checkpoint(self, cmd: Command) -> None:
        """Put what the checkpoint in `ckpt_dir` says of its model into the arguments that leave it open."""
        given = dict(self.layer.section("args"))
        if CKPT_DIR in given:
            value = given[CKPT_DIR]
            if value.items is not None and len(value.items) == 1:
                value = value.items[0]  # of ms-swift's `adapters`, which is a list
            given[CKPT_DIR] = self.place.localise_folder(value, self.problems)
        if cmd == "export":
            given = fill_in_model(given, self.problems)
        else:
            own = {name: value for name, value in given.items() if name in InferArgs.model_fields}
            infer = build(InferArgs, own, at=self.at, problems=[])
            if infer is not None:
                given = fill_in(InferRequest(infer=infer, given=given, at=self.at), self.problems)
        self._put_args(given)

    def _own_args(self, group: type[GroupT]) -> GroupT | None:
        """Return the arguments that only this command has."""
        given = {name: value for name, value in self.layer.section("args").items() if name in group.model_fields}
        before = len(self.problems)
        if "ckpt_dir" in given:
            given["ckpt_dir"] = self.place.localise_folder(given["ckpt_dir"], self.problems)
        if "output_dir" in given:
            given["output_dir"] = self.place.localise_new_folder(given["output_dir"], self.problems)
        built = build(group, given, at=self.at, problems=self.problems)
        return built if len(self.problems) == before else None

    def _check_export(
        self, export: ExportArgs, args: SftArgs | None, requirements: Resources | None, env: Mapping[str, str]
    ) -> None:
        """Report an export that cannot be made as asked, or does not fit the model."""
        given = self.layer.section("args")
        if args is not None:
            self.problems += find_unread(args, given)
            self.problems += check_exported_model(self.place.models, export, args, given, at=self.at, env=env)
            num_rows = self.place.datasets.count_training_rows(args) if export.calibrates and args.dataset else None
            self.problems += check_export_request(export, args, given, at=self.at, num_rows=num_rows)
        if requirements is not None and requirements.ddp > 1:
            at = self.layer.section("requirements").get("ddp", self.at)
            message = f"ddp {requirements.ddp}: an export runs in one process, on all of its GPUs"
            self.problems.append(at.problem(message, expected="ddp: 1"))

    def _refuse_tuners(self, given: dict[str, Located]) -> None:
        """Remove methods of ms-swift that are not supported, with the reason."""
        word = given["sft_type"].value if "sft_type" in given else None
        if isinstance(word, str) and word.lower() in UNSUPPORTED_TUNERS:
            message = f"`sft_type: {word}` is known but not supported by this version"
            hint = UNSUPPORTED_TUNERS[word.lower()]
            expected = ", ".join(list_sft_types())
            self.problems.append(given.pop("sft_type").problem(message, expected=expected, hint=hint))

    def _command(self, cmd: Command) -> CommandArgs | None:
        if cmd != "command":
            return None
        given = {name: value for name, value in self.layer.section("args").items() if name in CommandArgs.model_fields}
        if "command" not in given:
            hint = 'args: {command: "python train.py --epochs 1"}'
            self.problems.append(self.at.problem("no command to run", expected="`args.command`", hint=hint))
            return None
        given["command"] = self._split(given["command"])
        if "cwd" in given:
            given["cwd"] = self.place.localise_folder(given["cwd"], self.problems)
        return build(CommandArgs, given, at=self.at, problems=self.problems)

    def _split(self, value: Located) -> Located:
        """Split a command given as one text the way a shell would, but run none."""
        if not isinstance(value.value, str):
            return value
        try:
            words = shlex.split(value.value)
        except ValueError as error:
            self.problems.append(
                value.problem(f"cannot be split into words: {str(error).lower()}", hint="write a list")
            )
            words = [value.value]
        return replace(value, value=tuple(replace(value, value=word, raw=None) for word in words), raw=None)

    def _resources(self, section: str, device: Device) -> Resources | None:
        given = dict(self.layer.section(section))
        if section == "eval_requirements":
            inherited = self.layer.section("requirements")
            given = {**{key: inherited[key] for key in ("partition", "gpu_type") if key in inherited}, **given}
        extra: dict[str, Any] = {} if "gpu" in given else {"gpu": 1 if device == "cuda" else 0}
        before = len(self.problems)
        time = given.pop("time", None)
        if time is not None:
            extra["time_min"] = self._minutes(time)
        resources = build(Resources, given, at=self.at, problems=self.problems, extra=extra)
        return resources if len(self.problems) == before else None

    def _check_request(
        self, section: str, resources: Resources, device: Device, *, needs_gpu: bool, spreads: bool = False
    ) -> None:
        given = dict(self.layer.section(section))
        if "device" in self.layer.values:
            given["device"] = self.layer.values["device"]
        self.problems += check_resources(
            resources, given, at=self.at, section=section, device=device, needs_gpu=needs_gpu, spreads=spreads
        )

    def _minutes(self, value: Located) -> int | None:
        """Return a time limit in minutes, read from the text as written: YAML makes 5400 of 1:30:00."""
        text = value.value if value.raw is None else value.raw
        minutes = parse_minutes(text) if isinstance(text, str) else None
        if minutes is None:
            self.problems.append(value.problem(f"got {show(value)}", expected=FORMS))
        elif not 1 <= minutes <= LONGEST_MIN:
            self.problems.append(value.problem(f"{show(value)} is {minutes} minutes", expected="1 minute to 366 days"))
        return minutes

    def _env(self) -> dict[str, str]:
        env: dict[str, str] = {}
        for name, value in self.layer.section("env").items():
            if _ENV_NAME.fullmatch(name) is None:
                self.problems.append(value.problem(f"{name[:80]!r} is not the name of an environment variable"))
            elif name in TOKEN_VARIABLES:
                message = f"`{name}` in a suite would be copied into job files, records and reports"
                self.problems.append(value.problem(message, hint="set it in the shell that submits, or log in"))
            elif name in _ENV_OF_THE_JOB:
                self.problems.append(
                    value.problem("hpcbench sets this variable for each job", hint="use `requirements`")
                )
            elif (text := take_text(value, self.problems)) is not None:
                env[name] = text
        return env

    def _info(self) -> dict[str, Any]:
        return {name: to_plain(value) for name, value in self.layer.section("info").items()}

    def _max_attempts(self) -> int:
        value = self.layer.values.get("max_attempts")
        found = None if value is None else take_count(value, self.problems, low=1, high=1000)
        return DEFAULT_MAX_ATTEMPTS if found is None else found

    def _check_evals(
        self,
        cmd: Command,
        evals: tuple[str, ...],
        eval_args: Mapping[str, EvalArgs],
        args: SftArgs | None,
        command: CommandArgs | None,
    ) -> None:
        """Report evals that have nothing to evaluate, or nothing to evaluate with."""
        # What all experiments share is right for the others: complain about this one.
        at = self.layer.values.get("eval_dataset", self.at)
        for name in evals:
            if name in eval_args and eval_name_error(name) is None:
                self.problems += self.place.eval_tasks.check(name, eval_args[name], at)
        at = self.at if at.source == "suite" else at
        if cmd == "eval" and not evals:
            self.problems.append(at.problem("`cmd: eval` with nothing to evaluate", expected="`eval_dataset`"))
        wants_loss = [name for name in evals if name in eval_args and eval_args[name].eval_loss]
        if cmd == "eval" and wants_loss and args is not None and not (args.dataset or args.val_dataset):
            where = self.layer.section("eval_args").get("eval_loss", at)
            self.problems.append(
                where.problem("no data to compute eval_loss on", expected="`args.dataset` or `args.val_dataset`")
            )
        if cmd == "command" and command is not None and command.output_model is None:
            orphans = [name for name in evals if name in eval_args and not eval_args[name].command]
            if orphans:
                message = f"nothing to evaluate on {', '.join(orphans)}: the command has no output_model"
                self.problems.append(at.problem(message, expected="`args.output_model`, or `eval_args.command`"))
        self._check_best(cmd, evals, eval_args, args)

    def _check_best(
        self, cmd: Command, evals: tuple[str, ...], eval_args: Mapping[str, EvalArgs], args: SftArgs | None
    ) -> None:
        """Report `checkpoint: best` where nothing says which is best."""
        best = [name for name in evals if name in eval_args and eval_args[name].checkpoint == "best"]
        chosen = [name for name in evals if name in eval_args and eval_args[name].checkpoint is not None]
        where = self.layer.section("eval_args").get("checkpoint", self.at)
        if cmd == "export" and chosen and where.source != "suite":
            message = "`eval_args.checkpoint` chooses among those of a training, and an export makes one model"
            self.problems.append(where.problem(message, hint="write `checkpoint` under `args`: which one is exported"))
        if cmd in TRAININGS and best and args is not None and not has_validation(args):
            message = "`checkpoint: best` needs a validation split, and there is none"
            self.problems.append(where.problem(message, hint="set dataset_test_ratio or val_dataset, or take `last`"))

    def _sources(self, *groups: Arguments | None) -> dict[str, str]:
        """Return which layer set each argument."""
        given = self.layer.section("args")
        names = [name for group in groups if group is not None for name in type(group).model_fields]
        return {name: given[name].source if name in given else "default" for name in names}
