"""Suites in SWIFT's words through the test Slurm, scaled down: a tiny model, a few steps, a local eval task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcbench.schemas.states import JobState
from tests.support.places import QUICKSTART
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import hpcbench, wait_until_over
from tests.support.swift_suites import SUITES, models_of, write_stand_ins
from tests.support.tiny_models import make_llama_folder, make_model_folder, write_chats
from tests.train.test_export import quantised

pytestmark = [pytest.mark.slurm, pytest.mark.train]

NUM_LAYERS = 8
"""As many as llamapro and lisa of the suites need."""
SHORT = ("lora+", "qwen-7b-chat-eval")
OTHERS = (
    *("swift-1/train.yaml", "swift-2.0/eval.json", "swift-2.0/dpo.json"),
    *("swift-2.4/tuner.json", "swift-2.4/rlhf.json", "swift-2.4/pt.yaml"),
    *("swift-3/tuner.yaml", "swift-3/rlhf.yaml", "swift-4/tuner.yaml"),
    *("swift-2.0/export.json", "swift-2.4/export.json", "swift-4/export.yaml", "swift-4/infer.yaml"),
)
"""Suites that run on a CPU."""
ON_QUANTIZED = ("swift-2.0/gptq.json", "swift-2.0/awq.json", "swift-1/quantize.yaml")
"""Those on quantized bases."""
PLAIN = "plain"
BASES = {"int4": ("gptq", 4), "int8": ("gptq", 8), "awq": ("awq", 4)}
"""Ends of the names of models that are quantized -> how."""


def make_model(folder: Path, _quantization: Mapping[str, Any] | None) -> None:
    """Write a model of plain weights; experiments on quantized ones name the folder of theirs."""
    # Wide enough for the coefficients and blocks that the suites' methods of peft ask for.
    make_llama_folder(folder, num_layers=NUM_LAYERS, width=128, inner=256)


def write_preferences(path: Path, *, count: int) -> Path:
    """Write questions with a better and a worse answer."""
    rows = [{"query": f"say {n}", "response": f"{n}", "rejected_response": f"not {n}"} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_texts(path: Path, *, count: int) -> Path:
    """Write plain texts."""
    path.write_text("".join(json.dumps({"text": f"text number {n} of some words"}) + "\n" for n in range(count)))
    return path


def scaled_down(folder: Path, file: Path) -> Path:
    """Write a suite's twin for the CPU, of seconds instead of days; methods, names and words are the suite's own."""
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    kinds = {"dpo": write_preferences, "rlhf": write_preferences, "pt": write_texts}
    rows = kinds.get(document["cmd"], write_chats)(folder / "rows.jsonl", count=12)
    document |= {
        "device": "cpu",
        "requirements": {"gpu": 0, "ddp": 1, "mem_gb": 2, "time": "20m"},
        "eval_requirements": {"gpu": 0, "mem_gb": 2, "time": "20m"},
    }
    if document.get("eval_dataset"):
        document["eval_dataset"] = ["pig_latin"]
        document["eval_args"] = {"include_path": str(QUICKSTART / "tasks"), "limit": 2, "batch_size": 2}
    small: dict[str, Any] = {"dataset": str(rows), "dtype": "fp32", "max_length": 128}
    if document["cmd"] == "export":
        small |= {"quant_n_samples": 8, "quant_seqlen": 64, "group_size": 32}
    elif document["cmd"] != "eval":
        small |= {
            "max_steps": 2, "eval_steps": 2, "val_dataset_sample": 2, "dataset_test_ratio": 0.2, "logging_steps": 1,
            "gradient_accumulation_steps": 1, "dataloader_num_workers": 0,
        }  # fmt: skip
    if document["args"].get("train_dataset_mix_ratio"):
        small["train_dataset_mix_ds"] = str(write_chats(folder / "others.jsonl", count=24))
    others = {
        "torch_dtype",
        "split_dataset_ratio",
        "ddp_backend",
        "max_prompt_length",
        "warmup_steps",
        "use_flash_attn",
    }
    kept = {key: value for key, value in document["args"].items() if key not in others}
    document["args"] = {**kept, **small}
    for experiment in document["experiment"]:
        if "requirements" in experiment:
            experiment["requirements"] = {"gpu": 0, "ddp": int(experiment["requirements"].get("ddp", 1))}
        if "dataset" in experiment.get("args", {}):
            experiment["args"]["dataset"] = str(rows)
    # It needs a Python with unsloth.
    document["experiment"] = [row for row in document["experiment"] if row["name"] != "unsloth"]
    target = folder / f"{file.stem}.json"
    target.write_text(json.dumps(document))
    return target


def make_quantized(folder: Path) -> dict[str, Path]:
    """Return a folder of weights for each way in which models of the suites are quantized."""
    plain = make_model_folder(folder / "plain", width=128, inner=256)
    rows = write_chats(folder / "calibration.jsonl", count=24)
    found = {
        end: Path(quantised(folder / f"job-{end}", plain, rows, method, bits).output_model)
        for end, (method, bits) in BASES.items()
    }
    return {PLAIN: plain, **found}


def put_quantized(suite: Path, bases: Mapping[str, Path]) -> None:
    """Let the experiments of a suite take these weights for those of the hub's models."""
    document = json.loads(suite.read_text())
    for experiment in document["experiment"]:
        end = experiment["args"]["model_type"].rpartition("-")[2]
        experiment["args"]["model_id_or_path"] = str(bases.get(end, bases[PLAIN]))
    suite.write_text(json.dumps(document))


def run(
    folder: Path, file: Path, *only: str, timeout_s: float, bases: Mapping[str, Path] | None = None
) -> dict[str, Any]:
    """Run a scaled-down suite to its end; return its experiments as the JSON report has them, by name."""
    suite = scaled_down(folder, file)
    if bases is not None:
        put_quantized(suite, bases)
    hub = [name for name in models_of([suite]) if not name.startswith("/")]
    found = write_stand_ins(folder / "home", hub, make_model)
    profile = folder / "stand-ins.yaml"
    profile.write_text("env:\n" + "".join(f"  {key}: {value}\n" for key, value in found.items()))
    save_dir = folder / "logs"
    chosen = [word for name in only for word in ("--only", name)]
    with pytest.MonkeyPatch.context() as patch:
        for key, value in found.items():
            patch.setenv(key, value)
        hpcbench("submit", str(suite), "--cluster", str(profile), "--save-dir", str(save_dir), *chosen)
        wait_until_over(save_dir, timeout_s=timeout_s)
        report = json.loads(hpcbench("collect", "--save-dir", str(save_dir), "--format", "json").stdout)
    (told,) = report["suites"]
    return {experiment["name"]: experiment for experiment in told["experiments"]}


def check(experiment: Mapping[str, Any]) -> None:
    """Check that all jobs of an experiment completed; the message is each other job's record."""
    failed = [job for job in experiment["jobs"] if job["state"] != JobState.COMPLETED]
    assert failed == [], experiment["name"]


def test_some_rows_of_the_tuner_suite_run_scaled_down(slurm_cluster: Cluster, tmp_path: Path) -> None:
    found = run(tmp_path, SUITES / "swift-2.0" / "tuner.json", *SHORT, timeout_s=300)
    assert set(found) >= set(SHORT)
    for name in SHORT:
        check(found[name])


@pytest.mark.long
def test_all_24_rows_of_the_tuner_suite_run_scaled_down(slurm_cluster: Cluster, tmp_path: Path) -> None:
    found = run(tmp_path, SUITES / "swift-2.0" / "tuner.json", timeout_s=3000)
    assert len(found) == 24
    for experiment in found.values():
        check(experiment)


@pytest.mark.long
@pytest.mark.parametrize("name", OTHERS)
def test_a_suite_in_the_words_of_a_release_runs_scaled_down(name: str, slurm_cluster: Cluster, tmp_path: Path) -> None:
    for experiment in run(tmp_path, SUITES / name, timeout_s=1200).values():
        check(experiment)


@pytest.mark.long
@pytest.mark.parametrize("name", ON_QUANTIZED)
def test_a_suite_on_quantized_bases_runs_scaled_down(name: str, slurm_cluster: Cluster, tmp_path: Path) -> None:
    for experiment in run(tmp_path, SUITES / name, timeout_s=1200, bases=make_quantized(tmp_path)).values():
        check(experiment)
