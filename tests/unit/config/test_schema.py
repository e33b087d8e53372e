"""The JSON Schema for editors takes what config takes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from hpcbench.config.layers import REQUIREMENTS, SECTIONS, VALUES
from hpcbench.config.schema import suite_json_schema
from hpcbench.schemas.arguments import CommandArgs, EvalArgs, SftArgs
from hpcbench.schemas.report_options import ReportOptions
from tests.support.places import GOLDEN

EXAMPLE = GOLDEN / "config" / "seed_example.json"
SCHEMA = suite_json_schema()
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "integer": (int,),
    "number": (int, float),
}


def valid(value: object, schema: dict[str, Any]) -> bool:  # noqa: PLR0911
    """Return whether `value` fits, for the keywords that the schema uses."""
    if "$ref" in schema:
        return valid(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")])
    if "anyOf" in schema:
        return any(valid(value, choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        fits = any(isinstance(value, TYPES[name]) and isinstance(value, bool) <= (name == "boolean") for name in names)
        if not fits:
            return False
    if isinstance(value, dict):
        extra = schema.get("additionalProperties", {})
        known = schema.get("properties", {})
        if not set(schema.get("required", ())) <= value.keys():
            return False
        return all(
            valid(item, known.get(key, extra)) if known.get(key, extra) is not False else False
            for key, item in value.items()
        )
    if isinstance(value, list):
        return len(value) >= schema.get("minItems", 0) and all(valid(item, schema.get("items", {})) for item in value)
    if isinstance(value, str):
        return re.search(schema.get("pattern", ""), value) is not None and len(value) <= schema.get("maxLength", 10**6)
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        return bool(low <= value <= high and value > schema.get("exclusiveMinimum", value - 1))
    return True


def test_every_key_that_config_takes_is_there() -> None:
    defs = SCHEMA["$defs"]
    assert set(SCHEMA["properties"]) == {*SECTIONS, *VALUES, "report", "experiment"}
    assert set(defs["experiment"]["properties"]) == {*SECTIONS, *VALUES, "name"}
    assert {*SftArgs.model_fields, *CommandArgs.model_fields} <= set(defs["args"]["properties"])
    assert set(defs["requirements"]["properties"]) == set(REQUIREMENTS)
    report = SCHEMA["properties"]["report"]["anyOf"][0]
    assert set(report["properties"]) == set(ReportOptions.model_fields)
    assert set(defs["eval_args"]["properties"]) == {*EvalArgs.model_fields, "per_dataset"}


def test_fields_are_described_in_the_models_words() -> None:
    field = SCHEMA["$defs"]["args"]["properties"]["max_length"]
    assert field["description"] == "Longest sample in tokens; with packing the length of a pack."
    assert field["default"] == 2048


def test_it_is_json() -> None:
    assert json.loads(json.dumps(SCHEMA, allow_nan=False)) == SCHEMA


def test_the_example_suite_is_valid() -> None:
    assert valid(json.loads(EXAMPLE.read_text(encoding="utf-8")), SCHEMA)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        (
            {
                "args": {
                    "save_strategy": False,
                    "learning_rate": "5e-5",
                    "lora_target_modules": ["q", "v"],
                    "system": None,
                }
            },
            True,
        ),
        ({"requirements": {"time": "1:30:00", "gpu": "2"}, "matrix": {"lora_rank": [8, 16], "zip": {"a": [1]}}}, True),
        ({"args": {"lora_rank": 0}}, False),
        ({"args": {"lora_rnak": 8}}, False),
        ({"args": {"sft_type": "fulll"}}, False),
        ({"requirements": {"gpus": 1}}, False),
        ({"cmd": "dpo"}, True),
        ({"cmd": "grpo"}, False),
        ({"matrix": {"lora_rank": 8}}, False),
    ],
)
def test_right_and_wrong_suites(change: dict[str, object], expected: bool) -> None:
    assert valid({"cmd": "sft", "experiment": [{"name": "a", **change}]}, SCHEMA) is expected
