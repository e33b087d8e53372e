"""REFERENCE.md, made from the schemas, so that no argument, key, field or column can be missing from it.

In: the pydantic models, the suite's JSON Schema, the report's columns and the environment variables. Out: Markdown text. `tests/unit/
test_reference.py` compares it with the file and rewrites the file with `--update-golden`.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from hpcbench.cli.conventions import EXIT_BROKEN_PIPE, EXIT_FAILED, EXIT_USAGE
from hpcbench.config.aliases import ALIASES
from hpcbench.config.schema import suite_json_schema
from hpcbench.data.columns import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    MEDIA_COLUMNS,
    PAIR_SHAPES,
    PREFERENCE_COLUMNS,
    REGISTRY_COLUMNS,
    SHAPES,
    SPEAKERS,
    Lesson,
    Part,
    Shape,
    shapes_of,
)
from hpcbench.data.file_kinds import COMPRESSED_SUFFIXES, SUFFIXES, Kind
from hpcbench.errors import EXIT_INTERRUPTED
from hpcbench.report import cost
from hpcbench.report.columns import DATA_ONLY
from hpcbench.schemas import variables
from hpcbench.schemas.arguments import CommandArgs, EvalArgs, SftArgs
from hpcbench.schemas.cluster_profile import ClusterProfile, Container
from hpcbench.schemas.record import Record
from hpcbench.schemas.states import JobState
from hpcbench.schemas.tuners import SHORTHANDS
from tests.support.swift_names import Fate, SwiftName, fate_of, load_names

NOTICE = (
    "<!-- Made by tests/support/reference.py from the schemas; `pytest tests/unit --update-golden` rewrites it. -->"
)
INTRODUCTION = """\
Everything that a suite, a cluster profile and a record may hold, and every column of a report. `hpcbench schema` prints
the suite as a JSON Schema for editors, `hpcbench schema record` the record. [README](README.md) shows how they are used."""
FILES_INTRODUCTION = """\
The first bytes of a file tell what it is, and its name only which kind of text. Text is UTF-8; blank lines are left out. A folder is one
that `save_to_disk` of datasets wrote, or holds data files of one kind, which are read in the order of their names. Where their names, or
those of their folders, tell splits as on the Hugging Face hub, `train` is read; another split is named by its folder or file. Plan reads
all rows of up to 16 MiB; of larger data the first rows, some others where the kind allows it, and the end."""
SWIFT_INTRODUCTION = """\
Every argument that SWIFT 2.4 and ms-swift 4 declare. Honored are those that hpcbench has under the same name; a value that it cannot
honor is refused. Mapped are those that it has under another name. What changes nothing is taken, and plan says so. What is refused is
refused where it asks for something: a value that asks for nothing, such as the release's default, is taken."""
ROWS_INTRODUCTION = """\
A row is of the first shape all of whose needed columns are there and not null. Optional columns may be missing, null or empty; a list may
be written as JSON text, as in CSV files. Everything else that a row holds is named in a warning. Turns are objects of `from` and `value`,
or of `role` and `content`; content may be a list of `{"type": "text", "text": ...}`. Tools and calls of turns of `role` and `content` are
written by the chat template, all others by `agent_template`. An empty turn in the middle is kept; an answer that is trained on may not be
empty. In a `dataset_info.json`, `columns` names everything that is read, and `prompt` without `response` is plain text."""
EXIT_CODES = (
    (0, "done"),
    (EXIT_FAILED, "something failed, or an experiment changed since it completed"),
    (EXIT_USAGE, "wrong usage, suite or profile"),
    (EXIT_INTERRUPTED, "interrupted by Ctrl-C"),
    (EXIT_BROKEN_PIPE, "the reader of the output left, as `head` does"),
)
SAVE_DIR = ("`HPCBENCH_SAVE_DIR`", "For the command line: root of all results where `--save-dir` does not name one.")
ANCHORS = {
    "args": "training-arguments",
    "eval_args": "evaluation-arguments",
    "eval_entry": "evaluation-arguments",
    "experiment": "suite-keys",
    "JobState": "job-states",
}
"""Headings of definitions that are not called like them."""
AS_TEXT = ("text", "text or number", "true, false, yes, no, on, off")
FIELD_HEADER = ("name", "type", "default", "meaning")
SCORE_KEYS = (
    ("<dataset>_state", "state of the eval job"),
    ("<dataset>_<metric>", "the primary metric, by lm-eval's key, for example `gsm8k_exact_match,strict-match`"),
    ("<dataset>_<metric>_stderr", "its standard error"),
    ("<dataset>_num_samples", "documents evaluated"),
    ("<dataset>_debug", "whether `limit` cut the documents"),
    ("<dataset>_num_prompts_cut", "documents whose prompt lost its beginning because it did not fit into the context"),
    ("<dataset>/<task>_<metric>", "a task's own figure, of a group without a score; with `_stderr`"),
    ("<dataset>/<task>_num_samples", "documents of that task"),
)


def render_reference() -> str:
    """Return the text of REFERENCE.md."""
    suite = suite_json_schema()
    parts = [
        "# Reference",
        NOTICE,
        INTRODUCTION,
        *section("Suite keys", _schema_rows(suite["properties"]), ("key", "values", "meaning")),
        *section("Requirements", _schema_rows(suite["$defs"]["requirements"]["properties"]), ("key", "values", "meaning")),
        *section("Matrix", _schema_rows(suite["$defs"]["matrix"]["properties"]), ("key", "values", "meaning")),
        *_training_arguments(),
        *_swift_arguments(),
        *_dataset_rows(),
        *_model("Evaluation arguments", EvalArgs, "`eval_args:` of a suite; `per_dataset:` overrides them by dataset, as an entry of `eval_dataset` does."),
        *_model("Command arguments", CommandArgs, "`args:` of `cmd: command`."),
        *_model("Cluster profile", ClusterProfile, "`~/.config/hpcbench/clusters/NAME.yaml`; see `configs/clusters/`."),
        *_model("Container", Container, "`container:` of a profile.", level=3),
        *_record(),
        *section("Job states", [(f"`{state}`", text) for state, text in member_docs(JobState)], ("state", "meaning")),
        *_columns(),
        *section("Exit codes", [(str(code), text) for code, text in EXIT_CODES], ("code", "meaning")),
        *section("Environment variables", [SAVE_DIR, *_variables()], ("variable", "meaning")),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def section(title: str, rows: Iterable[Iterable[str]], header: tuple[str, ...], *, level: int = 2) -> list[str]:
    """Return a heading and a table."""
    return ["#" * level + f" {title}", table(rows, header)]


def table(rows: Iterable[Iterable[str]], header: tuple[str, ...]) -> str:
    """Return a Markdown table; a bar in a cell is escaped."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def member_docs(cls: type) -> list[tuple[str, str]]:
    """Return the value of each member of an enumeration with the docstring below it."""
    [body] = [
        node.body for node in ast.parse(textwrap.dedent(inspect.getsource(cls))).body if isinstance(node, ast.ClassDef)
    ]
    found: dict[str, str] = {}
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found[str(node.value.value)] = _docstring(following)
    return list(found.items())


def _variables() -> list[tuple[str, str]]:
    """Return the variables that a user's program may read, with their docstrings."""
    body = ast.parse(inspect.getsource(variables)).body
    documented = [
        (str(node.value.value), _docstring(following))
        for node, following in itertools.pairwise(body)
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant)
    ]
    return [(f"`{name}`", text) for name, text in documented if text.startswith("For a user's")]


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""


def _training_arguments() -> list[str]:
    parts = [
        "## Training arguments",
        "`args:` of a suite, options of `hpcbench sft`. Numbers and booleans may be text.",
    ]
    schema = SftArgs.model_json_schema()["properties"]
    for title, names in SftArgs.groups():
        parts += section(title, _field_rows({name: schema[name] for name in names}), FIELD_HEADER, level=3)
    shorthands = [
        (f"`{word}`", ", ".join(f"`{name}: {_plain(value)}`" for name, value in meant.items()))
        for word, meant in SHORTHANDS.items()
    ]
    parts += section("Short forms of sft_type", shorthands, ("sft_type", "stands for"), level=3)
    aliases = [(f"`{alias}`", f"`{name}`") for alias, name in sorted(ALIASES.items())]
    return [*parts, *section("Other names", aliases, ("also taken", "argument"), level=3)]


def _swift_arguments() -> list[str]:
    """Return what happens to each argument that SWIFT 2.4 and ms-swift 4 declare, with the counts."""
    names = load_names()
    releases = list(dict.fromkeys(name.release for name in names))
    groups = list(dict.fromkeys((name.release, name.group) for name in names))
    counts = Counter((name.release, name.group, fate_of(name.name)[0]) for name in names)
    rows = [
        (f"{release} {group}", *(str(counts[release, group, fate] or "") for fate in get_args(Fate)))
        for release, group in groups
    ]
    by_name: dict[str, list[SwiftName]] = {}
    for each in names:
        by_name.setdefault(each.name, []).append(each)
    listing = []
    for name, found in sorted(by_name.items()):
        fate, how = fate_of(name)
        where = "; ".join(
            f"{release} {', '.join(dict.fromkeys(each.group.removesuffix('Arguments') for each in found if each.release == release))}"
            for release in releases
            if any(each.release == release for each in found)
        )
        listing.append((f"`{name}`", where, fate, "" if how == f"`{name}`" else how))
    return [
        "## Arguments of SWIFT",
        SWIFT_INTRODUCTION,
        *section("Counts", rows, ("release and class", *get_args(Fate)), level=3),
        *section("Names", listing, ("argument", "declared by", "here", "as, or why and what instead"), level=3),
    ]


def _dataset_rows() -> list[str]:
    """Return the tables of `hpcbench/data/`, by which plan and jobs read files and rows."""
    shapes = [
        (shape.name, _names(shape.needed, " + "), _names(shape.optional), _names(_registry_columns(shape)))
        for shape in (*SHAPES, *PAIR_SHAPES)
    ]
    parts = [(f"`{name}`", _names(_columns_of(name)), text) for name, text in member_docs(Part)]
    speakers = [
        (role, _names(word for word, meant in SPEAKERS.items() if meant == role))
        for role in dict.fromkeys(SPEAKERS.values())
    ]
    suffixes = {kind: [name for name, named in SUFFIXES.items() if named is kind] for kind in Kind}
    files = [(name, _names(suffixes[Kind(name)]), text) for name, text in member_docs(Kind)]
    packed = f"Text may be compressed: {_names(sorted(COMPRESSED_SUFFIXES))}."
    return [
        "## Dataset files",
        f"{FILES_INTRODUCTION}\n{packed}",
        table(files, ("kind", "names", "meaning")),
        "## Dataset rows",
        ROWS_INTRODUCTION,
        *section("Shapes", shapes, ("shape", "needed columns", "read, too", "in a dataset_info.json"), level=3),
        *section("What columns hold", parts, ("part", "columns", "meaning"), level=3),
        *section("Speakers of turns", speakers, ("means", "names"), level=3),
        (
            f"Refused where they are not empty: {_names(MEDIA_COLUMNS)}, since hpcbench trains on text and images only,"
            f" {_names(IMAGE_COLUMNS)} where the model reads text alone, and {_names(PREFERENCE_COLUMNS)} outside of preference tuning. Shapes with a rejected answer are those of"
            " `cmd: dpo`, `orpo`, `simpo` and `cpo`; `cmd: kto` takes them too, and every shape with questions and answers that"
            f" has a label beside them ({_names(LABEL_COLUMNS)})."
        ),
    ]


def _names(names: Iterable[str], separator: str = ", ") -> str:
    return separator.join(f"`{name}`" for name in names)


def _columns_of(part: str) -> dict[str, None]:
    return {
        column: None
        for shape in shapes_of(Lesson.JUDGED)
        for column, held in (*shape.needed.items(), *shape.optional.items())
        if held == part
    }


def _registry_columns(shape: Shape) -> Iterable[str]:
    return next((columns for formatting, columns in REGISTRY_COLUMNS.items() if formatting == shape.name), {})


def _model(title: str, model: type[BaseModel], introduction: str, *, level: int = 2) -> list[str]:
    heading, rows = section(title, _field_rows(model.model_json_schema()["properties"]), FIELD_HEADER, level=level)
    return [heading, introduction, rows]


def _record() -> list[str]:
    schema = Record.model_json_schema()
    parts = [
        "## Record fields",
        "`record.json` of a job, schema version 1. A figure that is null has its reason in `unknown`.",
    ]
    models = {"Record": schema, **schema["$defs"]}
    for name, model in models.items():
        if "properties" in model:
            parts += [
                f"### {name}",
                _first_line(model),
                table(_record_rows(model["properties"]), (*FIELD_HEADER[:2], "meaning")),
            ]
    return parts


def _record_rows(properties: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [(f"`{name}`", type_text(schema), _meaning(schema)) for name, schema in properties.items()]


def _first_line(model: Mapping[str, Any]) -> str:
    return str(model.get("description", "")).strip().split("\n\n", 1)[0].replace("\n", " ")


def _field_rows(properties: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    return [(f"`{name}`", type_text(schema), _default(schema), _meaning(schema)) for name, schema in properties.items()]


def _schema_rows(properties: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [(f"`{name}`", type_text(schema), _meaning(schema)) for name, schema in properties.items()]


def _meaning(schema: Mapping[str, Any]) -> str:
    return " ".join(str(schema.get("description", "")).split())


def _default(schema: Mapping[str, Any]) -> str:
    if "default" not in schema:
        return "" if schema.get("type") in {"object", "array"} else "required"
    value = schema["default"]
    if value in ([], {}):
        return ""
    return f"`{_plain(value)}`"


def _plain(value: object) -> str:
    """Return a value as YAML writes it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case list():
            return " ".join(map(str, value))
        case _:
            return str(value)


def type_text(schema: Mapping[str, Any]) -> str:
    """Return which values a schema takes, in a few words; null is left out, for the default shows it."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rsplit("/", 1)[-1]
        return f"[{name}](#{ANCHORS.get(name, name.lower())})"
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        texts = [type_text(choice) for choice in choices if choice.get("type") != "null"]
        # A suite may write numbers and booleans as text, which the introduction says once.
        return ", ".join(dict.fromkeys([text for text in texts if text not in AS_TEXT] or texts))
    if "const" in schema or "enum" in schema:
        return ", ".join(map(_plain, schema.get("enum", [schema.get("const")])))
    kinds = [schema.get("type", "any")] if isinstance(schema.get("type", "any"), str) else schema["type"]
    return " or ".join(_kind_text(kind, schema) for kind in kinds if kind != "null")


def _kind_text(kind: str, schema: Mapping[str, Any]) -> str:
    match kind:
        case "array":
            return f"list of {type_text(schema['items'])}" if "items" in schema else "list"
        case "integer" | "number":
            return kind + _bounds(schema)
        case _:
            return {"string": "text", "boolean": "true, false", "object": "mapping"}.get(kind, kind)


def _bounds(schema: Mapping[str, Any]) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    texts = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return "".join(f" {text}" for text in texts)


_SETTINGS = (
    "After them comes a column for each setting that differs between experiments, by its name in a `matrix`, for "
    "example `lora_rank`, `requirements.gpu`, `eval_args.num_fewshot` or `env.NAME`."
)


def _columns() -> list[str]:
    # A note begins with the column's header, which stands beside it here.
    rows = [
        (f"`{column.key}`", column.header, column.note.split(": ", 1)[-1]) for column in (*DATA_ONLY, *cost.DATA_ONLY)
    ]
    header, listing = section("Report columns", rows, ("CSV and JSON", "header in tables", "meaning"))
    scores = section("Scores", [(f"`{key}`", text) for key, text in SCORE_KEYS], ("CSV and JSON", "meaning"), level=3)
    return [
        header,
        "CSV and JSON hold raw values under these names; tables show those that have something to say.",
        listing,
        _SETTINGS,
        *scores,
    ]
