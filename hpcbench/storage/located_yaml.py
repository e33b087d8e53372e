"""YAML and JSON as `yaml.safe_load` reads them, with the place and the source text of every value.

In: text, or a file. Out: a tree of `Located` values, and a Problem for everything that cannot be taken. It never builds
anything but plain values, never trusts the input's size or depth, and never raises on what it reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from hpcbench.errors import ConfigError, Problem, did_you_mean

MAX_BYTES = 2_000_000
MAX_NODES = 200_000
"""Values after aliases are written out: a thousand experiments have some 20,000."""
MAX_DEPTH = 40

Scalar = None | bool | int | float | str
Plain = Any
"""What `to_plain` returns: scalars, lists and dicts of them."""

_TAG = "tag:yaml.org,2002:"
_TAGS_OF: Mapping[type[Node], set[str]] = {
    ScalarNode: {_TAG + name for name in ("null", "bool", "int", "float", "str", "timestamp", "value", "merge")},
    SequenceNode: {_TAG + "seq"},
    MappingNode: {_TAG + "map"},
}
_AS_YAML = {"a valid tuple": "a list", "a valid dictionary": "a mapping (key: value)"}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A value, and where it was written."""

    value: Scalar | tuple[Located, ...] | Mapping[str, Located]
    file: str
    line: int | None
    """Of the key that it belongs to, counted from 1."""
    path: str
    """For example `experiment[lora].args.lora_rank`."""
    raw: str | None = None
    """Source text of an unquoted scalar, else None."""
    source: str = "suite"
    """Layer that set it: suite, experiment, matrix or --set."""

    @property
    def mapping(self) -> Mapping[str, Located] | None:
        """The entries of a mapping, else None."""
        return self.value if isinstance(self.value, Mapping) else None

    @property
    def items(self) -> tuple[Located, ...] | None:
        """The items of a list, else None."""
        return self.value if isinstance(self.value, tuple) else None

    @property
    def is_forgotten(self) -> bool:
        """Whether nothing at all was written after the key."""
        return self.value is None and self.raw == ""

    def at(self, place: Sequence[str | int]) -> Located:
        """Return the value at a place below; for what is missing, the nearest value that would hold it."""
        found = self
        for part in place:
            if found.items is not None and isinstance(part, int) and part < len(found.items):
                found = found.items[part]
            elif found.mapping is not None and str(part) in found.mapping:
                found = found.mapping[str(part)]
            else:
                break
        return found

    def problem(self, message: str, *, expected: str | None = None, hint: str | None = None) -> Problem:
        """Return a Problem that stands here."""
        return Problem(file=self.file, line=self.line, path=self.path, message=message, expected=expected, hint=hint)


class _TooDeepError(yaml.MarkedYAMLError):
    """Collections are nested deeper than any suite needs."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader that gives up on deep nesting and takes `5e-5` for the number it is."""

    depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _TooDeepError(None, None, f"nested deeper than {MAX_DEPTH} levels", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


# YAML 1.1 wants `5.0e-5`; YAML 1.2, JSON and people write `5e-5`.
_Loader.add_implicit_resolver(
    _TAG + "float", re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(path: Path, *, file: str, problems: list[Problem], may_be_empty: bool = False) -> Located | None:
    """Read a YAML or JSON file.

    Args:
        path: the file.
        file: how messages name it.
        problems: receives what is wrong.
        may_be_empty: take a file without values for an empty mapping.

    Returns:
        The document, or None when there is none to speak of.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            problems.append(_at(file, None, f"larger than {MAX_BYTES // 1_000_000} MB"))
            return None
        # Editors on Windows may write a byte order mark first.
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problems.append(_at(file, None, f"not UTF-8 text (byte {error.start})", hint="save it as UTF-8"))
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        problems.append(_at(file, None, f"cannot be read: {reason}"))
        return None
    if path.suffix == ".json":
        # JSON may be indented with tabs, YAML may not; inside JSON strings a bare tab is not allowed anyway.
        text = text.replace("\t", " ")
    return parse_yaml(text, file=file, problems=problems, may_be_empty=may_be_empty)


def read_mapping(file: Path) -> Located:
    """Return the mapping that a file holds; an empty file is an empty mapping.

    Raises:
        ConfigError: the file cannot be read or holds something else.
    """
    problems: list[Problem] = []
    document = read_yaml(file, file=str(file), problems=problems, may_be_empty=True)
    if document is not None and document.mapping is None:
        problems.append(document.problem(f"got {show(document)}", expected="a mapping (key: value)"))
    if document is None or problems:
        raise ConfigError(problems)
    return document


def parse_yaml(text: str, *, file: str, problems: list[Problem], may_be_empty: bool = False) -> Located | None:
    """Return the one document in `text`, or None with the reason in `problems`; see `read_yaml`."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        problems.append(_syntax_problem(error, text, file))
        return None
    except (RecursionError, ValueError, OverflowError, AttributeError, IndexError) as error:
        # PyYAML lets some of these through on broken escapes and directives.
        problems.append(_at(file, None, f"not valid YAML: {_one_line(str(error))}"))
        return None
    if node is None and may_be_empty:
        return Located(value={}, file=file, line=None, path="")
    if node is None:
        problems.append(_at(file, None, "empty"))
        return None
    return _Converter(file=file, problems=problems).convert(node, path="", line=_line(node), depth=0)


def resolve_scalar(text: str, *, file: str, path: str, source: str = "suite") -> Located:
    """Return `text` as an unquoted YAML scalar, whatever signs it holds; see `--set`."""
    converter = _Converter(file=file, problems=[])
    node = ScalarNode(converter.loader.resolve(ScalarNode, text, (True, False)), text)  # type: ignore[no-untyped-call]
    found = converter.scalar(node)
    value = text if converter.problems else found
    return Located(value=value, file=file, line=None, path=path, raw=text, source=source)


def relocate(value: Located, *, source: str, path: str | None = None) -> Located:
    """Return the value with its layer, and optionally a new path, written into it and all that it holds."""
    inner = value.value
    if isinstance(inner, tuple):
        inner = tuple(relocate(item, source=source) for item in inner)
    elif isinstance(inner, Mapping):
        inner = {name: relocate(item, source=source) for name, item in inner.items()}
    return replace(value, value=inner, source=source, path=value.path if path is None else path)


def to_plain(value: Located, *, floats_as_text: bool = False) -> Plain:
    """Return the value without its place; numbers that YAML misreads (0123, 1:30) stay text."""
    if isinstance(value.value, tuple):
        return [to_plain(item, floats_as_text=floats_as_text) for item in value.value]
    if isinstance(value.value, Mapping):
        return {name: to_plain(item, floats_as_text=floats_as_text) for name, item in value.value.items()}
    return value.raw if is_misread(value) or (floats_as_text and isinstance(value.value, float)) else value.value


def is_misread(value: Located) -> bool:
    """Return whether YAML 1.1 made another number of the text than a person reads: octal 0123, sexagesimal 1:30."""
    if isinstance(value.value, bool) or not isinstance(value.value, int | float) or value.raw is None:
        return False
    # PyYAML follows YAML 1.1, where 0123 is 83 and 1:30 is 90; YAML 1.2 reads 123 and the text 1:30.
    return ":" in value.raw or re.match(r"[-+]?0[0-9_]", value.raw) is not None


def describe_mistakes(error: ValidationError, value: Located, model: type[BaseModel]) -> list[Problem]:
    """Return pydantic's findings about a value as problems, unknown keys with the name that may have been meant."""
    problems = []
    for item in error.errors():
        place = item["loc"]
        unknown = item["type"] == "extra_forbidden"
        fields = _fields_at(model, place[:-1])
        found = value.at(place)
        message, expected = item["msg"].removeprefix("Value error, "), None
        if unknown:
            message, expected = "unknown key", ", ".join(fields)
        elif message.startswith("Input should be "):
            # pydantic's "Input should be a valid integer, unable to parse string as an integer" without the value.
            wanted = re.split(", unable| or instance of", message.removeprefix("Input should be "))[0]
            message, expected = f"got {show(found)}", _AS_YAML.get(wanted, wanted)
        problems.append(
            Problem(
                file=value.file,
                line=found.line if place or value.path else None,
                path=".".join([*([value.path] if value.path else []), *(str(part) for part in place)]),
                message=message,
                expected=expected,
                hint=did_you_mean(str(place[-1]), fields) if unknown else None,
            )
        )
    return problems


def _fields_at(model: type[BaseModel], place: Sequence[str | int]) -> Mapping[str, FieldInfo]:
    """Return the fields of a model, or of the one inside it that a key leads to."""
    for part in place:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        inner = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        model = next((kind for kind in inner if issubclass(kind, BaseModel)), model)
    return model.model_fields


def show(value: Located) -> str:
    """Return the value as messages show it: text in quotes, numbers as written, shortened."""
    if value.items is not None:
        return "a list"
    if value.mapping is not None:
        return "a mapping"
    if value.value is None:
        return "nothing" if value.is_forgotten else "null"
    return shorten(repr(value.value) if isinstance(value.value, str) or value.raw is None else value.raw)


def shorten(text: str, limit: int = 60) -> str:
    """Return `text` with its middle left out when it is too long for a message."""
    return text if len(text) <= limit else f"{text[: limit - 20]}...{text[-15:]}"


@dataclass(slots=True, kw_only=True)
class _Converter:
    """The conversion of PyYAML's nodes into Located values, within bounds."""

    file: str
    problems: list[Problem]
    num_nodes: int = 0
    gave_up: bool = False
    active: set[int] = field(default_factory=set)
    """Nodes being converted: an alias to one of them has no end."""
    loader: _Loader = field(default_factory=lambda: _Loader(""))

    def convert(self, node: Node, *, path: str, line: int, depth: int) -> Located | None:
        """Return the value of `node`, or None with the reason among the problems."""
        self.num_nodes += 1
        if self.gave_up:
            return None
        if self.num_nodes > MAX_NODES or depth > MAX_DEPTH or id(node) in self.active:
            self.gave_up = True
            # The line at hand is the anchor's, which is not where the mistake is.
            self.problems.append(self._problem(None, "", "aliases (&x, *x) that blow up to more than a suite can hold"))
            return None
        if node.tag not in _TAGS_OF[type(node)]:
            short = node.tag.replace(_TAG, "!!")
            self.problems.append(self._problem(line, path, f"YAML tag {shorten(short)!r} is not allowed"))
            return None
        value: Scalar | tuple[Located, ...] | Mapping[str, Located] = None
        raw = None
        self.active.add(id(node))
        if isinstance(node, MappingNode):
            value = self._mapping(node, path=path, depth=depth)
        elif isinstance(node, SequenceNode):
            value = self._sequence(node, path=path, depth=depth)
        elif isinstance(node, ScalarNode):
            before = len(self.problems)
            value = self.scalar(node, path=path, line=line)
            raw = node.value if node.style is None else None
            self.active.discard(id(node))
            if len(self.problems) > before:
                return None
        self.active.discard(id(node))
        return Located(value=value, file=self.file, line=line, path=path, raw=raw)

    def scalar(self, node: ScalarNode, *, path: str = "", line: int | None = None) -> Scalar:
        """Return the value of a scalar node."""
        text, tag, loader = node.value, node.tag.removeprefix(_TAG), self.loader
        try:
            if tag == "null":
                return None
            if tag == "bool":
                return bool(loader.construct_yaml_bool(node))
            if tag == "int":
                return int(loader.construct_yaml_int(node))
            if tag == "float":
                number = float(loader.construct_yaml_float(node))
                if number - number == 0:
                    return number
                self.problems.append(self._problem(line, path, f"{text!r} is not a finite number"))
                return None
        except (ValueError, KeyError, OverflowError, IndexError):
            self.problems.append(
                self._problem(line, path, f"{shorten(repr(text))} cannot be read as {tag}", hint="quote it")
            )
            return None
        return self._text(text, path=path, line=line)

    def _text(self, text: str, *, path: str, line: int | None) -> str | None:
        """Return text with JSON's surrogate pairs joined, or None when it cannot be written to a file."""
        try:
            # JSON writes characters above U+FFFF as two escapes (\ud83d\ude00), which PyYAML leaves apart.
            text = text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self.problems.append(self._problem(line, path, "half a surrogate pair, which is not a character"))
            return None
        if _CONTROL.search(text):
            self.problems.append(self._problem(line, path, f"control character in {shorten(repr(text))}"))
            return None
        return text

    def _sequence(self, node: SequenceNode, *, path: str, depth: int) -> tuple[Located, ...]:
        found = []
        for index, item in enumerate(node.value):
            label = f"{path}[{_item_name(item) or index}]"
            found.append(self.convert(item, path=label, line=_line(item), depth=depth + 1))
        return tuple(item for item in found if item is not None)

    def _mapping(self, node: MappingNode, *, path: str, depth: int) -> Mapping[str, Located]:
        entries: dict[str, Located] = {}
        merged: dict[str, Located] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = _line(key_node)
            if key_node.tag == _TAG + "merge":
                for name, entry in self._merge(value_node, path=path, line=line, depth=depth).items():
                    merged.setdefault(name, entry)
                continue
            key = self._key(key_node, path=path, line=line)
            if key is None:
                continue
            inner = f"{path}.{shorten(key)}" if path else shorten(key)
            if key in first_line:
                self.problems.append(self._problem(line, inner, f"given twice; first on line {first_line[key]}"))
                continue
            first_line[key] = line
            value = self.convert(value_node, path=inner, line=line, depth=depth + 1)
            if value is not None:
                entries[key] = value
        return {**{name: entry for name, entry in merged.items() if name not in first_line}, **entries}

    def _merge(self, node: Node, *, path: str, line: int, depth: int) -> dict[str, Located]:
        """Return the entries that `<<: *anchor` brings in, the first of several winning."""
        sources = node.value if isinstance(node, SequenceNode) else [node]
        entries: dict[str, Located] = {}
        for source in sources:
            value = self.convert(source, path=path, line=line, depth=depth + 1)
            if value is not None and value.mapping is None:
                self.problems.append(self._problem(line, path, "`<<` takes a mapping"))
            for name, entry in (value.mapping or {} if value is not None else {}).items():
                entries.setdefault(name, entry)
        return entries

    def _key(self, node: Node, *, path: str, line: int) -> str | None:
        """Return a key's source text: a key is a name, whatever YAML makes of `on` or `0123`."""
        self.num_nodes += 1
        if not isinstance(node, ScalarNode):
            self.problems.append(self._problem(line, path, "a key must be a name"))
            return None
        return self._text(node.value, path=path, line=line)

    def _problem(self, line: int | None, path: str, message: str, *, hint: str | None = None) -> Problem:
        return Problem(file=self.file, line=line, path=path, message=message, hint=hint)


def _item_name(node: Node) -> str | None:
    """Return the `name` of a list item that has a usable one."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if isinstance(key, ScalarNode) and key.value == "name" and isinstance(value, ScalarNode):
                return value.value if re.fullmatch(r"[A-Za-z0-9._+=-]{1,64}", value.value) else None
    return None


def _code(character: object) -> int:
    """Return a character's number; PyYAML gives that, or the byte."""
    return character if isinstance(character, int) else ord(str(character)[:1] or "?")


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _at(file: str, line: int | None, message: str, *, hint: str | None = None) -> Problem:
    return Problem(file=file, line=line, path="", message=message, hint=hint)


def _one_line(text: str) -> str:
    return shorten(" ".join(text.split()), 120)


def _syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    """Return the problem at the place where the YAML breaks off, in one line."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        what = ", ".join(_one_line(part) for part in (error.context, error.problem) if part)
        tab = "\\t" in what or "'\t'" in what
        hint = "indent with spaces; YAML takes no tabs" if tab else None
        return _at(file, None if mark is None else mark.line + 1, f"not valid YAML: {what}", hint=hint)
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return _at(file, line, f"not text: character #x{_code(error.character):04x} is not allowed")
    return _at(file, None, f"not valid YAML: {_one_line(str(error))}")
