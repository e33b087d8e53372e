"""Suites in the words of SWIFT 1 to 4 are planned as they stand, written as JSON or as YAML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcbench.config.loading import load_suites
from hpcbench.plan.requests import plan_suite
from hpcbench.schemas.request import JobRequest
from tests.support.model_folders import llama_tensors, write_model
from tests.support.places import ROOT
from tests.support.swift_suites import SUITES, models_of, suite_files, write_stand_ins

NUM_LAYERS, WIDTH = 8, 128
"""As many and as wide as the suites' methods need."""


def make_model(folder: Path, quantization: Mapping[str, Any] | None) -> None:
    more: dict[str, Any] = {"max_position_embeddings": 4096, "num_hidden_layers": NUM_LAYERS, "hidden_size": WIDTH}
    if quantization is not None:
        more["quantization_config"] = dict(quantization)
    write_model(folder, tensors=llama_tensors(num_layers=NUM_LAYERS, width=WIDTH), more=more)


@pytest.fixture(autouse=True, scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        found = write_stand_ins(tmp_path_factory.mktemp("home"), models_of(suite_files()), make_model)
        for name, value in found.items():
            patch.setenv(name, value)
        yield


def plan(file: Path) -> tuple[JobRequest, ...]:
    (suite,) = load_suites([file])
    return plan_suite(suite, save_dir=Path("/logs"), inputs={})


def name_of(file: Path) -> str:
    return str(file.relative_to(SUITES))


@pytest.mark.parametrize("file", suite_files(), ids=name_of)
def test_a_suite_in_the_words_of_a_release_is_planned_as_json_and_as_yaml(file: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    requests = plan(file)
    assert {request.base_experiment or request.experiment for request in requests} == {
        experiment["name"] for experiment in document["experiment"]
    }
    is_json = file.suffix == ".json"
    other = tmp_path / f"{file.stem}{'.yaml' if is_json else '.json'}"
    other.write_text(yaml.safe_dump(document) if is_json else json.dumps(document))
    ignored = {"suite_file": ""}
    assert [r.model_copy(update=ignored) for r in plan(other)] == [r.model_copy(update=ignored) for r in requests]


def test_the_tuner_suite_has_the_24_rows_of_the_published_table() -> None:
    document = json.loads((SUITES / "swift-2.0" / "tuner.json").read_text(encoding="utf-8"))
    assert len({experiment["name"] for experiment in document["experiment"]}) == 24


def test_each_release_and_each_kind_of_experiment_file_has_a_suite() -> None:
    kinds = {file.stem for file in suite_files()}
    assert {"tuner", "export", "awq", "gptq", "aqlm", "eval", "dpo", "quantize", "unsloth", "pt", "infer"} <= kinds
    assert {file.parent.name for file in suite_files()} == {"swift-1", "swift-2.0", "swift-2.4", "swift-3", "swift-4"}
    assert ROOT in SUITES.parents
