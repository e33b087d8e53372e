"""lm-eval's task files without lm-eval: the YAML below `eval_args.include_path`, read and never executed.

In: a folder. Out: what each file defines, with the files that it includes, and why files cannot be used. `!function`
is kept as a name. It follows lm-eval 0.4.13: `**/*.yaml`, sorted, and the first of two equal names counts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import yaml

from hpcbench.errors import WorkerError

MAX_FILES = 2_000
"""A folder with more is lm-eval's own, or a copy of it: too much for a look in passing."""
MAX_BYTES = 1_000_000
_IGNORED_FOLDERS = frozenset({"__pycache__", ".ipynb_checkpoints"})

Kind = Literal["task", "group", "class"]


@dataclass(frozen=True, slots=True)
class Function:
    """A `!function module.name` of a task file."""

    name: str
    folder: Path
    """Where the file lies that names it; lm-eval looks for the module there first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFile:
    """One task or group that a file defines."""

    name: str
    kind: Kind
    """`class` is a task written in Python."""
    path: Path
    config: Mapping[str, Any]
    """Its keys with those of the files that it includes."""

    @property
    def tags(self) -> tuple[str, ...]:
        """Names under which several tasks are called together."""
        return tuple(_texts(self.config.get("tag")))

    @property
    def members(self) -> tuple[str, ...]:
        """Names that a group lists, those of groups defined in place too."""
        return tuple(member_names(self.config.get("task"))) if self.kind == "group" else ()

    @property
    def called(self) -> tuple[str, ...]:
        """Names that a group lists alone, so that something else has to define them."""
        return tuple(called_names(self.config.get("task"))) if self.kind == "group" else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a file defines nothing that can be used."""

    path: Path
    line: int | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFolder:
    """What a folder of task files defines."""

    tasks: Mapping[str, TaskFile]
    faults: tuple[Fault, ...]
    is_whole: bool
    """False where the folder has more than MAX_FILES files, and only the first were read."""

    def find(self, name: str) -> tuple[TaskFile, ...]:
        """Return what has the name: a task or group, or all tasks with the tag."""
        if name in self.tasks:
            return (self.tasks[name],)
        return tuple(task for task in self.tasks.values() if name in task.tags)


def read_task_folder(folder: Path) -> TaskFolder:
    """Return what a folder and those below it define."""
    found = (path for path in sorted(folder.glob("**/*.yaml")) if not _IGNORED_FOLDERS & set(path.parts))
    paths = list(islice(found, MAX_FILES + 1))
    tasks: dict[str, TaskFile] = {}
    faults: list[Fault] = []
    for path in paths[:MAX_FILES]:
        try:
            task = _read_task(path)
        except WorkerError as error:
            faults.append(Fault(path=path, line=None, message=error.message))
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            said = getattr(error, "problem", None) or str(error).splitlines()[0]
            message = said if isinstance(error, yaml.constructor.ConstructorError) else f"not YAML: {said}"
            faults.append(Fault(path=path, line=None if mark is None else mark.line + 1, message=message))
        else:
            if task is not None and task.name in tasks:
                message = f"defines {task.name!r}, which {tasks[task.name].path} defines already"
                faults.append(Fault(path=path, line=None, message=message))
            elif task is not None:
                tasks[task.name] = task
    return TaskFolder(tasks=tasks, faults=tuple(faults), is_whole=len(paths) <= MAX_FILES)


def member_names(members: Any) -> Iterator[str]:
    """Yield the names in a group's `task:` list, also of those within groups that are defined in place."""
    for member in _items(members):
        if isinstance(member, str):
            yield member
        elif isinstance(member, Mapping) and "group" in member and "task" in member:
            yield from member_names(member["task"])
        elif isinstance(member, Mapping):
            yield from _texts(member.get("task", member.get("group")))


def called_names(members: Any) -> Iterator[str]:
    """Yield the names that stand alone in a group's `task:` list, also within groups that are defined in place."""
    for member in _items(members):
        if isinstance(member, str):
            yield member
        elif isinstance(member, Mapping) and "group" in member and "task" in member:
            yield from called_names(member["task"])


def _read_task(path: Path) -> TaskFile | None:
    """Return what a file defines, or None for a part that others include."""
    config = _read_config(path, ())
    kinds: tuple[Kind, ...] = ("class", "group", "task")  # lm-eval decides in this order
    kind = next((kind for kind in kinds if kind in config), None)
    if kind is None:
        return None
    name = config.get("group" if kind == "group" else "task")
    if not isinstance(name, str):
        # A list of tasks under a name that the file does not give is lm-eval's old form of a group.
        raise WorkerError(f"`{kind}: {name!r}` is not a name")
    return TaskFile(name=name, kind=kind, path=path, config=config)


def _read_config(path: Path, including: Sequence[Path]) -> dict[str, Any]:
    """Return the keys of a file and of those that it includes; its own win.

    Raises:
        WorkerError: the file cannot be read, holds something else, or includes itself.
        yaml.YAMLError: it is not YAML.
    """
    if path in including:
        raise WorkerError(f"{including[0].name} includes itself")
    try:
        data = path.read_bytes()
    except OSError as error:
        place = f"it includes {path}, which" if including else "it"
        raise WorkerError(f"{place} cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise WorkerError(f"a file of {len(data):,} bytes")
    loader = _loader_of(path.parent)
    value = yaml.load(data, Loader=loader)  # noqa: S506  # a subclass of SafeLoader
    if not isinstance(value, dict):
        raise WorkerError(f"{path.name} holds no mapping of keys")
    included = value.pop("include", None)
    merged: dict[str, Any] = {}
    for name in _texts(included):
        merged |= _read_config(path.parent / name, (*including, path))
        merged.pop("task_list", None)
    return merged | value


def _loader_of(folder: Path) -> type[yaml.SafeLoader]:
    class Loader(yaml.SafeLoader):
        """PyYAML's safe loader, which keeps lm-eval's one tag as a name and takes no key twice."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  # PyYAML's signature
            seen: dict[str, int] = {}
            for key, _ in node.value:
                first = seen.setdefault(str(key.value), key.start_mark.line + 1)
                if first != key.start_mark.line + 1:
                    # PyYAML takes the last one without a word.
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value} is given twice; first on line {first}", key.start_mark
                    )
            return super().construct_mapping(node, deep=deep)

    def keep_name(loader: yaml.SafeLoader, node: yaml.Node) -> Function:
        if not isinstance(node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "!function without a name", node.start_mark)
        return Function(str(loader.construct_scalar(node)), folder)

    Loader.add_constructor("!function", keep_name)
    return Loader


def _items(value: Any) -> Sequence[Any]:
    return [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else ()


def _texts(value: Any) -> list[str]:
    """Return one text or a list of texts as a list."""
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []
