"""What plan can know of eval tasks without lm-eval: their names, and whether local task files can work.

In: an eval dataset's name and arguments. Out: problems. Task files are read, never run; what is inside lm-eval's own
tasks only the job can see.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from hpcbench.catalog.eval_names import EVAL_NAMES
from hpcbench.catalog.lm_eval_names import is_installed, lm_eval_names, names_version
from hpcbench.config.eval_data import data_faults, local_data_faults
from hpcbench.data.split_choice import check_one_file_each
from hpcbench.data.task_files import Fault, Function, TaskFile, TaskFolder, read_task_folder
from hpcbench.errors import MissingLibraryError, Problem, WorkerError, did_you_mean
from hpcbench.schemas.arguments import EVAL_LOSS_ONLY, EvalArgs
from hpcbench.storage.located_yaml import Located

MOST_SHOWN = 10
MOST_FAULTS = 3
"""A group of 52 tasks whose data lack a split would say so 52 times."""
OUTPUT_TYPES = ("loglikelihood", "multiple_choice", "loglikelihood_rolling", "generate_until")


@dataclass(slots=True, kw_only=True)
class EvalTaskChecks:
    """Checks the eval datasets of one suite; each folder of task files is read once."""

    folders: dict[str, TaskFolder] = field(default_factory=dict)
    checked: dict[tuple[Path, str, int | None, tuple[tuple[str, str], ...]], tuple[Problem, ...]] = field(
        default_factory=dict
    )
    remarks: dict[str, None] = field(default_factory=dict)
    """What could not be checked, in the order met."""

    def check(self, dataset: str, eval_args: EvalArgs, at: Located) -> list[Problem]:
        """Return what is wrong with an eval dataset; names that nothing here knows are complained about at `at`."""
        if eval_args.command or dataset == EVAL_LOSS_ONLY:
            return []
        if eval_args.fewshot_as_multiturn and eval_args.apply_chat_template is False:
            message = "`fewshot_as_multiturn` writes rounds of a chat, which `apply_chat_template: false` rules out"
            return [at.problem(f"{dataset}: {message}", hint="remove one of them")]
        task_name = eval_args.task or dataset
        folders = [self._folder(path) for path in eval_args.include_path if Path(path).is_dir()]
        known = EVAL_NAMES.lookup(task_name)
        tasks = _find(task_name, folders)
        names = (task_name,) if tasks or known is None else known.tasks
        problems: list[Problem] = []
        if eval_args.local_data and not tasks:
            problems += self._check_local_data(task_name, eval_args, at)
        for name in names:
            problems += self._check_name(name, folders, eval_args, at, seen=frozenset())
        return problems

    def _folder(self, path: str) -> TaskFolder:
        if path not in self.folders:
            self.folders[path] = read_task_folder(Path(path))
        return self.folders[path]

    def _check_name(
        self, name: str, folders: list[TaskFolder], eval_args: EvalArgs, at: Located, *, seen: frozenset[str]
    ) -> list[Problem]:
        tasks = _find(name, folders)
        if not tasks:
            return [] if name in lm_eval_names() else self._unknown(name, folders, at)
        problems: list[Problem] = []
        for task in tasks:
            if task.kind == "group" and task.name not in seen:
                known = lm_eval_names()
                place = Located(value=None, file=str(task.path), line=None, path=f"group {task.name!r}")
                for member in task.called:
                    if member not in known and not _find(member, folders):
                        problems += self._unknown(member, folders, place)
                # Others that are not indexed may be defined in place, which only lm-eval can tell.
                members = [member for member in task.members if _find(member, folders)]
                for member in members:
                    problems += self._check_name(member, folders, eval_args, at, seen=seen | {task.name})
            elif task.kind == "task":
                problems += self._check_task(task, eval_args)
        return problems

    def _check_task(self, task: TaskFile, eval_args: EvalArgs) -> tuple[Problem, ...]:
        key = (task.path, task.name, eval_args.num_fewshot, tuple(eval_args.local_data.items()))
        if key not in self.checked:
            problems = []
            for error in _faults_of(task, eval_args):
                if isinstance(error, MissingLibraryError):
                    self.remarks[f"not checked: {error.fault}"] = None
                else:
                    file = str(task.path)
                    problems.append(Problem(file=file, line=None, path="", message=error.message, hint=error.hint))
            self.checked[key] = tuple(problems)
        return self.checked[key]

    def _check_local_data(self, name: str, eval_args: EvalArgs, at: Located) -> list[Problem]:
        """Return what is wrong with local data of a built-in task, as far as lm-eval's own files are here."""
        known = EVAL_NAMES.lookup(name)
        built_in = find_built_in_tasks()
        if known is None or built_in is None:
            self.remarks[f"not checked: whether local_data has the splits of eval task {name!r}"] = None
            return []
        folders = [self._folder(str(built_in / folder)) for folder in known.folders]
        wanted = {task.name: task for each in known.tasks for task in _leaves(each, folders)}
        try:
            check_one_file_each(f"eval dataset {name!r}", list(wanted), eval_args.local_data)
        except WorkerError as error:
            return [at.problem(error.message, hint=error.hint)]
        faults = (each for task in wanted.values() for each in _faults_of_data(task, eval_args))
        return [at.problem(error.message, hint=error.hint) for error in islice(faults, MOST_FAULTS)]

    def _unknown(self, name: str, folders: list[TaskFolder], at: Located) -> list[Problem]:
        """Return what is wrong with a name that no index has."""
        faults = [fault for folder in folders for fault in folder.faults]
        if faults:
            return [_fault_problem(fault, f"eval dataset {name!r} is not found, and this file") for fault in faults]
        if not all(folder.is_whole for folder in folders):
            return []
        local = {task for folder in folders for task in folder.tasks}
        known = {*local, *EVAL_NAMES.names(), *(other for other in lm_eval_names() if other[:2] == name[:2])}
        hint = did_you_mean(name, known)
        version = names_version()
        if not is_installed(version):
            remark = f"not checked: {name!r} is not a task of lm-eval {version}, and jobs may have another version"
            self.remarks[remark if hint is None else f"{remark}; {hint}"] = None
            return []
        expected = ", ".join(sorted(local)[:MOST_SHOWN]) if local else None
        hint = hint or "`lm-eval ls tasks` lists all names; your own task files are found by eval_args.include_path"
        return [at.problem(f"no eval task {name[:80]!r} in lm-eval {version}", expected=expected, hint=hint)]


def _find(name: str, folders: list[TaskFolder]) -> tuple[TaskFile, ...]:
    """Return what has the name in the folders; the last one that has it counts."""
    return next((found for folder in reversed(folders) if (found := folder.find(name))), ())


def _fault_problem(fault: Fault, who: str) -> Problem:
    return Problem(
        file=str(fault.path), line=fault.line, path="", message=f"{who} cannot be used: {fault.message}", hint=None
    )


def find_built_in_tasks() -> Path | None:
    """Return the folder of lm-eval's own task files, or None where it is not installed; nothing is imported."""
    found = importlib.util.find_spec("lm_eval")
    return None if found is None or found.origin is None else Path(found.origin).parent / "tasks"


def _leaves(name: str, folders: list[TaskFolder]) -> Iterator[TaskFile]:
    """Yield the tasks with data of their own behind a name."""
    for task in _find(name, folders):
        if task.kind == "group":
            for member in task.members:
                yield from _leaves(member, folders)
        elif task.kind == "task":
            yield task


def _faults_of_data(task: TaskFile, eval_args: EvalArgs) -> Iterator[WorkerError]:
    """Yield what is wrong with a task's data."""
    what = f"eval task {task.name!r}"
    if not eval_args.local_data:
        yield from data_faults(what, task.config, eval_args.num_fewshot)
        return
    yield from local_data_faults(what, task.config, eval_args.local_data, eval_args.num_fewshot)


def _faults_of(task: TaskFile, eval_args: EvalArgs) -> Iterator[WorkerError]:
    """Yield what is wrong with one task: its settings, its Python code, its data, its shots."""
    what = f"eval task {task.name!r}"
    config = task.config
    output_type = config.get("output_type", "generate_until")
    if output_type not in OUTPUT_TYPES:
        hint = did_you_mean(str(output_type), OUTPUT_TYPES)
        yield WorkerError(
            f"{what}: unknown output_type {output_type!r}; expected: {', '.join(OUTPUT_TYPES)}", hint=hint
        )
    if not config.get("test_split") and not config.get("validation_split"):
        yield WorkerError(f"{what}: neither test_split nor validation_split", hint="name the split that is evaluated")
    if config.get("unsafe_code"):
        yield WorkerError(f"{what}: runs code that the model writes (`unsafe_code: true`), which hpcbench does not do")
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        yield WorkerError(f"{what}: takes images or sound, and hpcbench evaluates on text only")
    for function in _functions(config):
        if (fault := _check_function(function)) is not None:
            yield WorkerError(f"{what}: !function {function.name}: {fault.message}", hint=fault.hint)
    yield from _faults_of_data(task, eval_args)


def _functions(value: Any) -> Iterator[Function]:
    """Yield each `!function` once."""
    found: dict[str, Function] = {}

    def walk(part: Any) -> None:
        if isinstance(part, Function):
            found.setdefault(part.name, part)
        for child in part.values() if isinstance(part, Mapping) else part if isinstance(part, list | tuple) else ():
            walk(child)

    walk(value)
    yield from found.values()


def _check_function(function: Function) -> WorkerError | None:
    """Return why a function cannot be found; its module is parsed, never run."""
    module, _, name = function.name.rpartition(".")
    if not module:
        return WorkerError("no module", hint=f"write {function.name}.NAME, for a function in {function.name}.py")
    file = function.folder / f"{module.replace('.', '/')}.py"
    if not file.is_file():
        # Of a package only its outermost part can be looked for without running any of it.
        is_installed = "." in module or importlib.util.find_spec(module) is not None
        return None if is_installed else WorkerError(f"no {file.name} in {file.parent}", hint=f"put {file.name} there")
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError as error:
        return WorkerError(f"{file}:{error.lineno} is not valid Python: {error.msg}")
    except (OSError, ValueError) as error:
        return WorkerError(f"{file} cannot be read: {error}")
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
    if name in names or "*" in names:
        return None
    return WorkerError(f"{file} defines no {name!r}", hint=did_you_mean(name, names))
