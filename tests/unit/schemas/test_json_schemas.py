"""The JSON Schemas of what users write and read, as golden files: a changed key, default or help text shows in review."""

from __future__ import annotations

import json

import pydantic
import pytest
from pydantic import BaseModel

from hpcbench.compare.result import ComparisonReport
from hpcbench.config.schema import suite_json_schema
from hpcbench.schemas.answers import ANSWERS
from hpcbench.schemas.cluster_profile import ClusterProfile, Container
from hpcbench.schemas.record import Record
from hpcbench.schemas.report_file import ReportFile
from tests.conftest import Golden


# Before 2.11 pydantic left `additionalProperties: true` out.
@pytest.mark.skipif(
    tuple(int(part) for part in pydantic.VERSION.split(".")[:2]) < (2, 11),
    reason="pydantic words the schema differently",
)
@pytest.mark.parametrize("name", ["suite", "record", "profile", "collect", "compare", *ANSWERS])
def test_the_json_schema_is_as_reviewed(name: str, golden: Golden) -> None:
    made = {
        "suite": suite_json_schema,
        "record": Record.model_json_schema,
        "profile": ClusterProfile.model_json_schema,
        "compare": ComparisonReport.model_json_schema,
    }
    answers: dict[str, type[BaseModel]] = {**ANSWERS, "collect": ReportFile}
    schema = made[name]() if name in made else answers[name].model_json_schema(mode="serialization")
    golden(f"schemas/{name}.json", json.dumps(schema, indent=1, ensure_ascii=False) + "\n")


@pytest.mark.parametrize("model", [ClusterProfile, Container])
def test_every_key_of_a_profile_is_described(model: type[ClusterProfile | Container]) -> None:
    assert [name for name, info in model.model_fields.items() if not info.description] == []
