"""What `make gpu-check` tries is planned, and has what the README says needs a GPU."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from hpcbench.errors import ConfigError
from hpcbench.storage.json_files import write_json
from tests.gpu.check import NUM_STEPS, Place, Result, compare_losses, find_place, plan_row, render, try_row
from tests.gpu.rows import ROWS, GpuRow
from tests.support.method_rows import FRAMEWORKS, GPU
from tests.support.model_folders import write_model


@pytest.fixture
def place(tmp_path: Path) -> Place:
    write_model(tmp_path / "model")
    row = {"query": "a", "response": "b"}
    for name, more in (("rows.jsonl", {}), ("pairs.jsonl", {"rejected_response": "c"})):
        (tmp_path / name).write_text((json.dumps(row | more) + "\n") * 20, encoding="utf-8")
    return Place(folder=tmp_path, device="cuda", num_gpus=1)


def test_plan_takes_all_rows(place: Place) -> None:
    refused = []
    for row in ROWS:
        try:
            plan_row(row, place)
        except ConfigError as error:
            refused.append((row.name, str(error)))
    assert refused == []


def test_what_speeds_a_training_up_on_a_gpu_is_tried() -> None:
    tried = [dict(row.args) for row in ROWS]
    for method in FRAMEWORKS.rows:
        if method.state == GPU:
            asked = yaml.safe_load(f"{{{method.ask}}}")
            # Other frameworks run in environments of their own, which a check without a network does not make.
            assert "cmd" in asked or any(asked.items() <= args.items() for args in tried), method.name


def test_names_are_unique_and_references_come_first() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    for number, row in enumerate(ROWS):
        assert row.same_losses_as is None or row.same_losses_as in names[:number]


def test_a_rehearsals_results_and_inputs_are_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.gpu.check._count_gpus", lambda _device: 1)
    rehearsal, real = (find_place(tmp_path, device) for device in ("cpu", "cuda"))
    write_json(rehearsal.result_file("lora"), asdict(Result(name="lora", state="works")))
    assert rehearsal.read_result("lora") is not None
    assert real.read_result("lora") is None
    assert real.folder != rehearsal.folder


def test_what_cannot_run_here_says_why(place: Place) -> None:
    two = GpuRow(name="two", requirements={"gpu": 2, "ddp": 2})
    missing = GpuRow(name="missing", args={"optim": "grokadamw"})
    refused = GpuRow(name="refused", args={"optim": "magic"})
    found = [try_row(row, place, limit_s=1) for row in (two, missing, refused)]
    assert [(result.state, result.why) for result in found] == [
        ("lacks GPUs", "2, and 1 is here"),
        ("lacks a library", "grokadamw"),
        ("refused by plan", "args.optim: unknown optim 'magic'"),
    ]
    assert try_row(two, place, limit_s=0).state == "not run"


def test_losses_that_differ_from_the_references_fail(place: Place) -> None:
    row = GpuRow(name="fast", same_losses_as="lora")
    reference = Result(name="lora", state="works", losses=(2.0,) * NUM_STEPS)
    place.result_file("lora").parent.mkdir()
    place.result_file("lora").write_text(json.dumps(asdict(reference)), encoding="utf-8")
    assert compare_losses(row, (2.01,) * NUM_STEPS, place)[1] == ""
    assert compare_losses(row, (2.5,) * NUM_STEPS, place)[1] == "losses differ by 0.5, more than 0.05"
    assert compare_losses(row, (2.0,) * 3, place)[1] == f"3 of {NUM_STEPS} losses are finite"


def test_a_rehearsal_never_says_that_a_gpu_works(place: Place) -> None:
    cpu = Place(folder=place.folder, device="cpu", num_gpus=0)
    table = render([Result(name="lora", state="works", step_s=0.0123, losses=(2.0, 1.5), ran="sdpa")], cpu)
    assert "works on a CPU; not yet run on a GPU" in table
    assert "| 12.3 " in table
