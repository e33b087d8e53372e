"""`hpcbench export-model`: what may be typed, what its checkpoint fills in, and what a second run does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from hpcbench import cli
from hpcbench.cli.single_run.command_line import read_words
from hpcbench.cli.single_run.options import EXPORT_MODEL, options_of
from hpcbench.cli.single_run.run import load_typed
from hpcbench.config.loading import load_suites
from hpcbench.errors import EXIT_INTERRUPTED, ConfigError
from hpcbench.scheduler.local.runner import run_queue
from hpcbench.schemas.metrics import ExportMetrics
from hpcbench.schemas.submission import Submission
from hpcbench.schemas.suite import Experiment
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import MANIFEST, JobPaths, SuitePaths
from tests.support.job_cases import record
from tests.support.model_folders import write_model

ADAPTER = ("--ckpt_dir", "lora", "--device", "cpu")
Run = Callable[..., int]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HPCBENCH_SAVE_DIR", raising=False)
    write_model(tmp_path / "tiny")
    (tmp_path / "rows.jsonl").write_text('{"query": "a", "response": "b"}\n' * 8)
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tmp_path / "tiny"), "peft_type": "LORA"})
    )


def load(*words: str) -> Experiment:
    return load_typed(read_words(EXPORT_MODEL, words), has_gpu=False)


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `hpcbench export-model`, with jobs that leave a record instead of exporting."""

    def job_command(submission: Submission, index: int) -> list[str]:
        element = submission.elements[index]
        job = SuitePaths(tmp_path / "output", submission.suite).job(element.experiment, element.job)
        made = record(
            suite=submission.suite,
            experiment=element.experiment,
            job=element.job,
            cmd="export",
            fingerprint=element.fingerprint,
            metrics=ExportMetrics(output_model=str(tmp_path / "merged"), merged=True, size_gib=0.5),
        )
        write_json(job.folder / "made.json", made.model_dump(mode="json"))
        return ["cp", str(job.folder / "made.json"), str(job.record)]

    monkeypatch.setattr("hpcbench.cli.single_run.run.run_queue", partial(run_queue, job_command=job_command))

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["hpcbench", "export-model", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    return run


def test_an_adapter_names_its_model_and_output_dir_is_the_models_folder(tmp_path: Path) -> None:
    found = load(*ADAPTER, "--merge_lora", "true", "--output_dir", "merged")
    assert found.args is not None
    assert found.export is not None
    assert (found.cmd, found.args.model_id_or_path) == ("export", str(tmp_path / "tiny"))
    assert (found.export.ckpt_dir, found.export.merge_lora) == (str(tmp_path / "lora"), True)
    assert found.export.output_dir == str(tmp_path / "merged")


def test_a_model_is_quantized_on_rows() -> None:
    words = "--model tiny --quant_bits 4 --quant_method gptq --dataset rows.jsonl --quant_n_samples 4 --group_size -1"
    found = load(*words.split(), "--device", "cpu")
    assert found.args is not None
    assert found.export is not None
    assert (found.export.quant_bits, found.export.quant_method) == (4, "gptq")
    assert (found.args.dataset, found.args.system, found.args.quantization_bit) == (
        (str(Path("rows.jsonl").absolute()),),
        None,
        0,
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--quant_bits 4", "no model"),
        ("--model tiny", "nothing to export"),
        ("--ckpt_dir nowhere", "--ckpt_dir: no such folder: 'nowhere'"),
        ("--ckpt_dir tiny", "tiny is a whole model, and quant_bits is 0"),
        ("--ckpt_dir lora --merge_lora false --quant_bits 4", "is an adapter, which cannot be quantised by itself"),
        ("--ckpt_dir lora --partition gpu", "this verb runs one on this machine, at once"),
        ("--ckpt_dir lora --save_dir null", "--save_dir: no value"),
        ("--ckpt_dir lora --learning_rate 1", "learning_rate"),
    ],
)
def test_what_cannot_be_taken_is_said_at_the_option(words: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*words.split(), "--device", "cpu")
    text = str(caught.value)
    assert text.startswith("hpcbench export-model")
    assert told in text


def test_its_options_are_an_exports_own_and_what_a_calibration_reads() -> None:
    options = options_of("export-model")
    assert {"ckpt_dir", "output_dir", "save_dir", "quant_bits", "dataset", "model_type", "seed"} <= options.keys()
    assert {"ckpt_from", "lora_rank", "quantization_bit", "eval_dataset"}.isdisjoint(options)
    assert options["quant_method"].kind.choices == ("awq", "gptq", "bnb")


def test_a_finished_one_is_not_made_again(export: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = (*ADAPTER, "--output_dir", "merged", "--name", "first")
    assert (export(*words), export(*words)) == (0, 0)
    out = capsys.readouterr().out
    assert "tiny/first: already completed" in out
    assert out.count("started") == 1
    assert out.count(f"tiny/first export: adapter merged, 0.5 GiB\n  model: {tmp_path / 'merged'}\n") == 2


def test_the_suite_file_plans_the_same_export(export: Run) -> None:
    assert export(*ADAPTER, "--max_shard_size", "1GB") == 0
    (suite,) = load_suites([Path("output/tiny.yaml")])
    request = read_json(JobPaths(Path("output/tiny/export-v0/export")).request)
    assert request is not None
    assert suite.experiments[0].export is not None
    assert suite.experiments[0].export.model_dump(mode="json") == request["export"]


def test_records_go_where_save_dir_or_the_environment_says(export: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcbench.cli.single_run.run.run_queue", lambda *_, **__: EXIT_INTERRUPTED)
    assert export(*ADAPTER, "--save_dir", "there") == 130
    monkeypatch.setenv("HPCBENCH_SAVE_DIR", "elsewhere")
    assert export(*ADAPTER) == 130
    for root in ("there", "elsewhere"):
        assert Path(root, "tiny/export-v0/export/job.json").is_file()


def test_a_folder_that_is_there_is_refused_before_anything_starts(
    export: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "merged").mkdir()
    assert export(*ADAPTER, "--output_dir", "merged", "--name", "first") == 2
    assert capsys.readouterr().err == (
        f"{tmp_path}/output/tiny.yaml: experiment[first].args.output_dir: {tmp_path}/merged exists already, and this "
        "export has not made it\n  expected: a folder that does not exist yet\n"
        "  hint: name another folder, or move that one away\n1 problem found; nothing was submitted\n"
    )
    assert not Path("output/tiny.yaml").exists()


def test_a_folder_that_this_very_export_made_before_its_end_is_taken(export: Run, tmp_path: Path) -> None:
    words = (*ADAPTER, "--output_dir", "merged", "--name", "first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hpcbench.cli.single_run.run.run_queue", lambda *_, **__: EXIT_INTERRUPTED)
        assert export(*words) == 130
    request = read_json(JobPaths(Path("output/tiny/first/export")).request) or {}
    write_json(tmp_path / "merged" / MANIFEST, {"fingerprint": request["fingerprint"]})
    assert export(*words) == 0
