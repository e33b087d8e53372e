"""The suites of configs/tables: plan takes each, they have the rows of their table, and a modern twin has other models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcbench.config.loading import load_suites
from hpcbench.errors import ConfigError, Problem
from hpcbench.plan.requests import plan_suite
from hpcbench.report import render
from hpcbench.report.facts import facts_of
from hpcbench.report.pivot_table import pivot_table
from hpcbench.schemas.collection import Collection, ExperimentView, JobView, SuiteView
from hpcbench.schemas.request import JobRequest
from hpcbench.schemas.states import JobState
from hpcbench.schemas.suite import Suite
from tests.support.benchmark_tables import pipe_tables
from tests.support.model_folders import llama_tensors, write_model
from tests.support.published_tables import (
    FOLDER,
    LATER,
    LISTS,
    MODERN,
    PUBLISHED,
    SWEEPS,
    published_table,
    suite_files,
    twin_of,
)
from tests.support.report_parts import COLLECTED_AT
from tests.support.scaled_tables import OTHER_ROWS, ROWS, demo_suites, overrides
from tests.support.swift_suites import models_of, write_stand_ins
from tests.support.tiny_models import write_chats

NUM_LAYERS, WIDTH = 8, 128
"""As many and as wide as the suites' methods need."""
FILES = [file for file in suite_files() if file.stem not in LATER]
GUIDES = ("few-shots", "llamafactory-swift", "parallel", "sharding")
"""Suites of what guides and training scripts compare, which have no table of their rows."""
SETTINGS = ("exp_name", "model_type", "dataset", "ms-bench mix ratio", "tuner", "tuner_params", "hypers")
UNSET = frozenset({("unsloth", "tuner_params")})
"""Cells that the published tables leave empty though the row had such settings."""
EXPORT_SETTINGS = ("exp_name", "model_type", "calibration dataset", "quantization method", "quantization bits")


def make_model(folder: Path, quantization: Mapping[str, Any] | None) -> None:
    more: dict[str, Any] = {"max_position_embeddings": 8192, "num_hidden_layers": NUM_LAYERS, "hidden_size": WIDTH}
    if quantization is not None:
        more["quantization_config"] = dict(quantization)
    write_model(folder, tensors=llama_tensors(num_layers=NUM_LAYERS, width=WIDTH), more=more)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return write_stand_ins(tmp_path_factory.mktemp("home"), models_of(suite_files()), make_model)


@pytest.fixture
def stand_ins(home: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Put models that this version loads in the place of all that the suites name."""
    for name, value in home.items():
        monkeypatch.setenv(name, value)


def load(file: Path) -> Suite:
    (suite,) = load_suites([file])
    return suite


def problems_of(file: Path) -> tuple[Problem, ...]:
    """Return why a suite is refused."""
    try:
        load_suites([file])
    except ConfigError as error:
        return tuple(error.problems)
    return ()


def planned(suite: Suite) -> Collection:
    """Return what a report shows of a suite of which nothing ran yet."""
    requests = plan_suite(suite, save_dir=Path("/logs"), inputs={})
    views = tuple(
        _view(suite.name, name, tuple(jobs)) for name, jobs in groupby(requests, lambda request: request.experiment)
    )
    shown = SuiteView(name=suite.name, experiments=views, report=suite.report)
    return Collection(suites=(shown,), collected_at=COLLECTED_AT)


def _view(suite: str, name: str, requests: tuple[JobRequest, ...]) -> ExperimentView:
    jobs = [
        JobView(
            suite=suite, experiment=name, job=request.job, state=JobState.PLANNED, folder=Path("/logs"), request=request
        )
        for request in requests
    ]
    is_trained = requests[0].eval_dataset is None
    main = jobs[0] if is_trained else None
    cmd = requests[0].cmd
    return ExperimentView(suite=suite, name=name, cmd=cmd, main=main, evals=tuple(jobs[is_trained:]))


@pytest.mark.parametrize("file", [file for file in FILES if file.parent == MODERN], ids=lambda file: file.stem)
def test_plan_takes_a_modern_suite(file: Path) -> None:
    assert plan_suite(load(file), save_dir=Path("/logs"), inputs={})


@pytest.mark.parametrize("file", [file for file in FILES if file.parent == PUBLISHED], ids=lambda file: file.stem)
def test_plan_takes_a_published_suite_where_its_models_load(file: Path, stand_ins: None) -> None:
    assert plan_suite(load(file), save_dir=Path("/logs"), inputs={})


@pytest.mark.parametrize("file", [file for file in FILES if file.parent == PUBLISHED], ids=lambda file: file.stem)
def test_a_published_suite_is_refused_for_its_models_alone_and_has_a_modern_twin_then(file: Path) -> None:
    problems = problems_of(file)
    assert all("cannot be loaded: its " in problem.message for problem in problems)
    assert twin_of(file).exists() == bool(problems)


@pytest.mark.parametrize("file", demo_suites(), ids=lambda file: file.stem)
def test_a_suite_can_be_scaled_down_to_a_cpu(file: Path, tmp_path: Path, stand_ins: None) -> None:
    for rows in (ROWS, OTHER_ROWS):
        write_chats(tmp_path / rows, count=24)
    (suite,) = load_suites([file], overrides=overrides(file, tmp_path))
    whole = load(file)
    assert [experiment.name for experiment in suite.experiments] == [
        experiment.name for experiment in whole.experiments
    ]
    assert {experiment.device for experiment in suite.experiments} == {"cpu"}


@pytest.mark.parametrize("file", sorted(MODERN.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_modern_suite_is_its_published_one_but_for_the_models(file: Path) -> None:
    (published,) = [found for found in sorted(PUBLISHED.glob("*.yaml")) if twin_of(found) == file][-1:]
    modern_text, published_text = (_without_models(found.read_text(encoding="utf-8")) for found in (file, published))
    assert yaml.safe_load(modern_text) == yaml.safe_load(published_text)


def _without_models(text: str) -> str:
    return re.sub(
        r"\b(?:qwen|chatglm|yi-|baichuan|llama|openbuddy|mistral)[\w.-]*", lambda found: _form(found[0]), text
    )


def _form(name: str) -> str:
    """Return how the weights of a model are held, and what follows its name in that of an experiment."""
    end = re.search(r"(?:-gptq)?(-int[48])$|(-eval|-8192)$", name)
    return "MODEL" + ("" if end is None else end[1] or end[2])


def test_the_folder_holds_a_suite_for_every_published_table() -> None:
    assert {file.stem for file in PUBLISHED.glob("*.yaml")} == {*SWEEPS, *LISTS, *GUIDES}
    assert {file.suffix for file in FOLDER.rglob("*") if file.is_file()} == {".yaml"}


@pytest.mark.parametrize("name", sorted(SWEEPS.keys() - LATER))
def test_a_sweep_has_the_rows_of_its_table(name: str, stand_ins: None) -> None:
    theirs = published_table(SWEEPS[name])
    suite = load(PUBLISHED / f"{name}.yaml")
    table = pivot_table([facts_of(view) for view in planned(suite).suites[0].experiments], suite.report)
    assert [column.header for column in table.columns] == theirs.header
    depth = len(suite.report.by)
    ours = {
        (*(_setting(cell.text) for cell in cells[:depth]), _gpus_of(row.first.view))
        for row, cells in zip(table.rows, table.cells, strict=True)
    }
    assert ours == {(*map(_setting, cells[:depth]), _num_gpus(cells)) for cells in theirs.rows[1:]}


def _setting(text: str) -> str:
    """Return a setting without what only a run knows: what DEFAULT came out as."""
    return re.sub(r" \((?:c_attn|\d\*\w+)\)$", "", text)


def _gpus_of(view: ExperimentView) -> int:
    request = view.jobs[0].request
    return 0 if request is None else request.resources.gpu


def _num_gpus(cells: list[str]) -> int:
    found = re.search(r"\((\d)\*A100\)", " ".join(cells))
    return 1 if found is None else int(found[1])


@pytest.mark.parametrize("name", LISTS)
def test_a_list_has_the_rows_of_its_table(name: str, stand_ins: None) -> None:
    theirs = published_table(LISTS[name])
    suite = load(PUBLISHED / f"{name}.yaml")
    (ours,) = pipe_tables(render(planned(suite), format="markdown"))
    settings = [key for key in (EXPORT_SETTINGS if name == "export" else SETTINGS) if (name, key) not in UNSET]
    assert ours.header == theirs.header
    assert [[row[key] for key in settings] for row in ours.records()] == [
        [row[key] for key in settings] for row in theirs.records()
    ]
