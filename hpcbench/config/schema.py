"""The JSON Schema (draft 2020-12) of a suite, for editors that complete and check YAML.

It is looser than the rest of `config/`, which alone decides: what a schema cannot say, it lets pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from hpcbench.catalog.peft_methods import peft_methods
from hpcbench.config.aliases import ALIASES
from hpcbench.config.commands import COMMAND_WORDS
from hpcbench.config.experiment_builder import DEVICES
from hpcbench.config.layers import PER_DATASET
from hpcbench.config.names import MAX_NAME_LENGTH
from hpcbench.schemas.arguments import CommandArgs, EvalArgs, FrameworkArgs, SftArgs
from hpcbench.schemas.durations import FORMS
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.schemas.request import Resources
from hpcbench.schemas.tuners import list_peft_methods, prefixes_of
from hpcbench.storage.json_files import JsonObject

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_NULL: JsonObject = {"type": "null"}
_TEXT: JsonObject = {"type": ["string", "number"]}
_NUMBER_TEXT: JsonObject = {"type": "string", "pattern": r"^\s*[-+]?[0-9.][0-9._eE+-]*\s*$"}
_EVAL: list[JsonObject] = [_TEXT, {"$ref": "#/$defs/eval_entry"}]
_BOOLEAN_TEXT: JsonObject = {"enum": ["true", "false", "yes", "no", "on", "off"]}

_DESCRIPTIONS: Mapping[str, str] = {
    "cmd": (
        "sft, pt and rlhf train (dpo, orpo, simpo, kto and cpo are rlhf with this loss), eval evaluates an untrained "
        "baseline, command runs any program."
    ),
    "device": "Where jobs run; with cpu, `ddp` counts CPU ranks.",
    "requirements": "What a training job asks the scheduler for.",
    "eval_requirements": "What an eval job asks for; partition and gpu_type are taken from requirements.",
    "eval_dataset": (
        "Evaluations after training: lm-eval tasks or groups, or ms-swift's names; an entry {name, task, ...} has "
        "arguments of its own; [] for none."
    ),
    "eval_args": "How evaluations are done; `per_dataset` overrides by name.",
    "args": "Arguments of cmd.",
    "env": "Environment variables of the jobs, as text.",
    "info": "Free notes, as a sentence or a mapping, carried into the records.",
    "matrix": "Lists of values by argument: one experiment per combination.",
    "repeats": "Number of seeds to run each experiment with.",
    "max_attempts": "Starts that time limits, preemption and node failures may use up.",
}


def suite_json_schema() -> JsonObject:
    """Return the JSON Schema of a suite file."""
    keys = {name: {**_key_schema(name), "description": text} for name, text in _DESCRIPTIONS.items()}
    name = {"type": ["string", "number"], "maxLength": MAX_NAME_LENGTH, "description": "Unique in the suite."}
    experiment: JsonObject = {
        "type": "object",
        "properties": {"name": name, **keys},
        "required": ["name"],
        "additionalProperties": False,
    }
    experiments: JsonObject = {
        "type": "array",
        "items": {"$ref": "#/$defs/experiment"},
        "minItems": 1,
        "description": "The experiments; each may override any other key.",
    }
    return {
        "$schema": DIALECT,
        "title": "hpcbench suite",
        "type": "object",
        "properties": {**keys, "report": _report(), "experiment": experiments},
        "required": ["experiment"],
        "additionalProperties": False,
        "$defs": {
            "args": {
                **_section(_with_aliases({**_fields(SftArgs), **_fields(CommandArgs), **_fields(FrameworkArgs)})),
                "patternProperties": _fields_of_peft(),
            },
            "requirements": _section(_requirements()),
            "eval_args": _section({**_eval_fields(), PER_DATASET: _per_dataset()}),
            "eval_entry": _section({"name": _TEXT, **_eval_fields()}),
            "matrix": _matrix(),
            "experiment": experiment,
        },
    }


def _key_schema(name: str) -> JsonObject:
    if name in {"args", "requirements", "eval_requirements", "eval_args", "matrix"}:
        return {"anyOf": [{"$ref": f"#/$defs/{name.removeprefix('eval_') if 'requirements' in name else name}"}, _NULL]}
    simple: Mapping[str, JsonObject] = {
        "cmd": {"enum": list(COMMAND_WORDS)},
        "device": {"enum": list(DEVICES)},
        "eval_dataset": {"anyOf": [*_EVAL, {"type": "array", "items": {"anyOf": _EVAL}}, _NULL]},
        "env": {"type": ["object", "null"], "additionalProperties": {"type": ["string", "number", "null"]}},
        "info": {"type": ["object", "string", "null"]},
        "repeats": {"anyOf": _loosen({"type": "integer", "minimum": 1})},
        "max_attempts": {"anyOf": _loosen({"type": "integer", "minimum": 1})},
    }
    return dict(simple[name])


def _section(properties: JsonObject) -> JsonObject:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _fields(model: type[BaseModel]) -> JsonObject:
    """Return the model's properties as a suite may write them: numbers as text, null to remove."""
    properties: JsonObject = {}
    for name, schema in model.model_json_schema()["properties"].items():
        kept = {key: schema[key] for key in ("description", "default") if key in schema}
        alternatives = schema.get("anyOf", [schema])
        loose = [choice for alternative in alternatives for choice in _loosen(alternative)]
        properties[name] = {**kept, "anyOf": _unique([*loose, _NULL])}
    return properties


def _loosen(schema: Mapping[str, Any]) -> list[JsonObject]:
    """Return the forms in which a suite may give a value of this schema."""
    own = {key: value for key, value in schema.items() if key not in {"title", "description", "default"}}
    match own.get("type"):
        case "integer" | "number":
            return [own, _NUMBER_TEXT]
        case "boolean":
            return [own, _BOOLEAN_TEXT]
        case "array":
            return [_TEXT, {"type": "array", "items": _TEXT}]
        case "string" if "enum" in own:
            # YAML reads an unquoted `no` as false.
            return [{"enum": [*own["enum"], *([False] if "no" in own["enum"] else [])]}]
        case "string":
            return [own if "const" in own else _TEXT]
        case _:
            return [own]


def _unique(schemas: Iterable[JsonObject]) -> list[JsonObject]:
    found: list[JsonObject] = []
    for schema in schemas:
        if schema not in found:
            found.append(schema)
    return found


def _with_aliases(properties: JsonObject) -> JsonObject:
    """Add the other names under which arguments are taken; their values may be other words too."""
    aliases = {alias: {"description": f"Same as `{name}`."} for alias, name in ALIASES.items()}
    return {**aliases, **properties}


def _fields_of_peft() -> JsonObject:
    """Return the fields of peft's methods, which have hundreds of names, by patterns."""
    methods = list_peft_methods()
    prefixes = sorted({prefix.removesuffix("_") for method in methods for prefix in prefixes_of(method)})
    fields = sorted({field for method in methods for field in peft_methods()[method].fields} - {*SftArgs.model_fields})
    text = "A field of peft's configuration of the method."
    return {
        f"^({'|'.join(prefixes)})_[A-Za-z0-9_]+$": {"description": text},
        f"^({'|'.join(fields)})$": {"description": text},
    }


def _requirements() -> JsonObject:
    properties = _fields(Resources)
    del properties["time_min"]
    properties["time"] = {"type": ["string", "integer", "null"], "description": f"Time limit: {FORMS}."}
    return properties


def _eval_fields() -> JsonObject:
    files = {"type": "object", "additionalProperties": {"type": "string"}}
    fields = _fields(EvalArgs)
    return {**fields, "local_data": {**fields["local_data"], "anyOf": [{"type": "string"}, files, _NULL]}}


def _per_dataset() -> JsonObject:
    return {
        "type": ["object", "null"],
        "additionalProperties": _section(_eval_fields()),
        "description": "Overrides by eval dataset.",
    }


def _report() -> JsonObject:
    text = "How `collect` shows the results; options that are typed there win."
    return {"anyOf": [_section(_fields(ReportOptions)), _NULL], "description": text}


def _matrix() -> JsonObject:
    values = {"type": "array", "minItems": 1}
    return {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "Template of names, for example r{lora_rank}-lr{learning_rate}."},
            "zip": {"type": "object", "additionalProperties": values, "description": "Lists walked side by side."},
            "exclude": {"type": "array", "items": {"type": "object"}, "description": "Combinations left out."},
        },
        "additionalProperties": values,
    }
