"""The verbs that run one job without a queue: what may be typed, what is refused, and what a second run does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcbench import cli
from hpcbench.cli.single_run.command_line import read_words
from hpcbench.cli.single_run.options import EVAL, SFT, Verb, options_of
from hpcbench.cli.single_run.outcome_text import describe_job
from hpcbench.cli.single_run.place import suite_label
from hpcbench.cli.single_run.run import load_typed
from hpcbench.config.loading import load_suites
from hpcbench.config.other_tools import OTHER_EVAL_OPTIONS
from hpcbench.errors import EXIT_INTERRUPTED, ConfigError
from hpcbench.scheduler.local.runner import run_queue
from hpcbench.schemas.collection import ExperimentView, JobView
from hpcbench.schemas.metrics import EvalMetrics, Parameters, TaskResult, TrainMetrics
from hpcbench.schemas.record import Cause
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import Submission
from hpcbench.schemas.suite import Experiment
from hpcbench.schemas.suite_folder import read_suite
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import JobPaths, SuitePaths
from tests.support.job_cases import record
from tests.support.model_folders import write_model
from tests.support.typed_commands import help_of

ROWS = '{"query": "a", "response": "b"}\n' * 8


def load(*words: str, verb: Verb = SFT, has_gpu: bool = False) -> Experiment:
    return load_typed(read_words(verb, words), has_gpu=has_gpu)


def refusals(*words: str, verb: Verb = SFT) -> list[str]:
    """Return what is said of a command line that cannot be taken, one text per problem."""
    try:
        load(*words, verb=verb)
    except ConfigError as error:
        return [problem.render() for problem in error.problems]
    raise AssertionError("it was taken")


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ("--lora_rank 16", "lora_rank", 16),
        ("--lora-rank=16", "lora_rank", 16),
        ("--r 16", "lora_rank", 16),
        ("--gradient_checkpinting true", "gradient_checkpointing", True),
        ("--per_device_train_batch_size 4", "batch_size", 4),
        ("--tuner_bankend swift", "tuner_backend", "swift"),
        ("--only_save_model True", "only_save_model", True),
        ("--packing", "packing", True),
        ("--packing --seed 1", "packing", True),
        ("--gradient_checkpinting", "gradient_checkpointing", True),
        ("--train_dataset_sample -1", "train_dataset_sample", -1),
        ("--learning_rate 5e-5", "learning_rate", 5e-5),
        ("--lora_target_modules q_proj,v_proj", "lora_target_modules", ("q_proj", "v_proj")),
        ("--lora_target_modules q_proj v_proj", "lora_target_modules", ("q_proj", "v_proj")),
        ("--dataset alpaca-en,alpaca-zh", "dataset", ("alpaca-en", "alpaca-zh")),
        ("--dataset alpaca-en alpaca-zh", "dataset", ("alpaca-en", "alpaca-zh")),
        ("--system null", "system", None),
        ("--system=", "system", ""),
        ("--system=--yes", "system", "--yes"),
        ("--system yes", "system", "yes"),
        ("--model qwen2.5-3b-instruct", "model_type", "qwen2.5-3b-instruct"),
        ("--sft_type adalora --adalora_deltaT 3", "adalora_deltaT", 3),
        ("--sft_type dora", "use_dora", True),
        ("--push_to_hub false", "seed", 42),
    ],
)
def test_words_become_arguments(words: str, field: str, value: object) -> None:
    assert getattr(load(*words.split()).args, field) == value


def test_a_model_by_its_path_has_no_default_model_type_beside_it(tmp_path: Path) -> None:
    write_model(tmp_path)
    args = load("--model", str(tmp_path)).args
    assert args is not None
    assert (args.model_type, args.model_id_or_path) == (None, str(tmp_path))


@pytest.mark.parametrize(
    ("words", "has_gpu", "device", "gpu", "ddp"),
    [
        ("", True, "cuda", 1, 1),
        ("", False, "cpu", 0, 1),
        ("--ddp 2", True, "cuda", 2, 2),
        ("--ddp 2", False, "cpu", 0, 2),
        ("--gpu 4", False, "cuda", 4, 1),
        ("--gpu 0", True, "cpu", 0, 1),
        ("--device cpu", True, "cpu", 0, 1),
    ],
)
def test_resources_follow_the_machine_unless_they_are_typed(
    words: str, has_gpu: bool, device: str, gpu: int, ddp: int
) -> None:
    found = load(*words.split(), has_gpu=has_gpu)
    assert (found.device, found.requirements.gpu, found.requirements.ddp) == (device, gpu, ddp)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("lora", "lora: a word without an option"),
        ("suite.yaml", "hpcbench submit suite.yaml runs a suite"),
        ("--lora_rnak 8", "did you mean 'lora_rank'?"),
        ("--outptu_dir x", "did you mean 'output_dir'?"),
        ("--batch_size 0", "--batch_size: got '0'\n  expected: integer, 1 or more"),
        ("--batch_size", "--batch_size: no value\n  expected: integer, 1 or more"),
        ("--batch_size 1 2", "unexpected '2' after its value"),
        ("--dtype fp8", "expected: bf16, fp16, fp32"),
        ("--packing maybe", "--packing: got 'maybe'\n  expected: true or false"),
        ("--dataset nowhere.jsonl", "no such file: 'nowhere.jsonl'"),
        ("--dataset null", "no dataset to train on"),
        ("--model ./nowhere", "--model: no such folder: './nowhere'"),
        ("--sft_type longlora", "known but not supported"),
        ("--fsdp true", "`fsdp: full_shard` shards over ranks, and ddp is 1"),
        ("--ignore_args_error true", "trains something else than was asked for"),
        ("--seed 1 --seed 2", "--seed: given twice"),
        ("--lora-rank 1 --lora_rank 2", "--lora_rank: the same as --lora-rank"),
        ("--lora_rank 1 --r 2", "are the same argument"),
        ("--partition gpu", "this verb runs one on this machine, at once"),
        ("-s 1", "options have two dashes"),
        ("--name a:b", "--name: the name 'a:b' holds ':'"),
        ("--ddp 3 --gpu 2", "ddp 3 is more than gpu 2"),
        ("--force maybe", "--force: got 'maybe'\n  expected: true or false"),
        ("--output_dir null", "--output_dir: no value"),
    ],
)
def test_what_cannot_be_taken_is_said_at_the_option(words: str, told: str) -> None:
    found = refusals(*words.split())
    assert len(found) == 1, found
    assert found[0].startswith("hpcbench sft: ")
    assert told in found[0]


def test_all_mistakes_are_told_together() -> None:
    assert len(refusals("--batch_size", "0", "--dtpye", "fp16", "--temperature", "hot")) == 3


def test_eval_takes_the_arguments_of_an_evaluation_with_a_prefix() -> None:
    words = ("--eval_dataset", "arc", "gsm8k", "--eval_limit", "5", "--eval_batch_size", "2")
    found = load(*words, "--eval_gen_kwargs", "{max_gen_toks: 64}", verb=EVAL)
    assert found.cmd == "eval"
    assert found.eval_dataset == ("arc", "gsm8k")
    assert {(args.limit, args.batch_size) for args in found.eval_args.values()} == {(5, 2)}
    assert found.eval_args["arc"].gen_kwargs == {"max_gen_toks": 64}


def test_local_data_of_an_eval_is_a_path_or_files_by_split(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text('{"question": "q", "answer": "a"}\n' * 6, encoding="utf-8")
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "test")}
    words = ("--model", "qwen2.5-7b-instruct", "--eval_dataset", "gsm8k", "--eval_batch_size", "auto")
    for value in (str(tmp_path), f"{{train: {files['train']}, test: {files['test']}}}"):
        (args,) = load(*words, "--eval_local_data", value, verb=EVAL).eval_args.values()
        assert (args.local_data, args.batch_size) == (files, "auto")


@pytest.mark.parametrize("option", sorted(OTHER_EVAL_OPTIONS))
def test_eval_names_the_option_for_lm_evals(option: str) -> None:
    (found, *_) = refusals(f"--{option}", "1", "--eval_dataset", "arc", verb=EVAL)
    assert found.startswith(f"hpcbench eval: --{option}: is ")
    assert found.endswith(f"\n  hint: {OTHER_EVAL_OPTIONS[option]}")
    named = OTHER_EVAL_OPTIONS[option].partition("--")[2].split()[0].rstrip(";")
    assert {"model": "model_id_or_path"}.get(named, named) in options_of("eval")


def test_eval_takes_no_argument_of_a_training() -> None:
    (found,) = refusals("--learning_rate", "1e-4", "--eval_dataset", "arc", verb=EVAL)
    assert found == "hpcbench eval: --learning_rate: is for a training, which eval does not do\n  hint: leave it out"
    (found,) = refusals("--lora_r", "4", "--eval_dataset", "arc", verb=EVAL)
    assert found.startswith("hpcbench eval: --lora_r: is for a training")


def test_the_command_line_of_lm_eval_as_hpcbench_has_it() -> None:
    words = "--model m --eval_dataset gsm8k --eval_batch_size 1 --output_dir ./eval_results --eval_num_fewshot 1"
    found = load(*words.split(), "--eval_gen_kwargs", "{temperature: 0.5, max_gen_toks: 8}", verb=EVAL)
    assert found.eval_args["gsm8k"].num_fewshot == 1


def test_eval_of_nothing_is_refused() -> None:
    (found,) = refusals("--model_type", "qwen2.5-3b-instruct", verb=EVAL)
    assert "nothing to evaluate" in found


def test_after_a_training_one_gpu_evaluates() -> None:
    found = load("--ddp", "2", "--eval_dataset", "arc", has_gpu=True)
    assert (found.eval_requirements.gpu, found.eval_requirements.ddp) == (1, 1)


def test_the_help_of_eval_leaves_out_what_changes_nothing() -> None:
    text = help_of("eval")
    assert "--eval_num_fewshot" in text
    assert "--learning_rate" not in text


@pytest.mark.parametrize(
    ("model", "label"), [("Qwen3-0.6B", "Qwen3-0.6B"), ("a b", "a_b"), (".x", "model_.x"), ("local", "model_local")]
)
def test_a_models_name_becomes_a_folder(model: str, label: str) -> None:
    assert suite_label(model) == label


Run = Callable[..., int]
CKPT = ("--ckpt_dir", "output/tiny/lora-v0/train/checkpoints/last")


def _train_metrics() -> TrainMetrics:
    return TrainMetrics(
        parameters=Parameters(trainable=1, total=10), train_loss=1.5, eval_loss=1.25, num_steps=2, num_samples=8,
        num_tokens=80, samples_per_second=4.0, best_checkpoint="checkpoints/best", best_step=1,
        last_checkpoint="checkpoints/last",
    )  # fmt: skip


def _eval_metrics(job: str) -> EvalMetrics:
    task = TaskResult(metrics={"acc,none": 0.75}, num_samples=4)
    return EvalMetrics(
        dataset=job.removeprefix("eval-"), primary_task="t", primary_metric="acc,none", tasks={"t": task}
    )


@pytest.fixture
def sft(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `hpcbench sft` in a folder of its own, with jobs that leave a record instead of training."""
    (tmp_path / "rows.jsonl").write_text(ROWS)
    write_model(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HPCBENCH_SAVE_DIR", raising=False)

    def job_command(submission: Submission, index: int) -> list[str]:
        element = submission.elements[index]
        job = SuitePaths(tmp_path / "output", submission.suite).job(element.experiment, element.job)
        metrics = _train_metrics() if element.job == "train" else _eval_metrics(element.job)
        names: dict[str, Any] = {
            "suite": submission.suite,
            "experiment": element.experiment,
            "job": element.job,
            "cmd": "sft" if element.job == "train" else "eval",
            "fingerprint": element.fingerprint,
        }
        if element.job == "train":
            for name in ("best", "last"):
                (job.checkpoints / name).mkdir(parents=True, exist_ok=True)
        write_json(job.folder / "made.json", record(**names, metrics=metrics).model_dump(mode="json"))
        return ["cp", str(job.folder / "made.json"), str(job.record)]

    monkeypatch.setattr("hpcbench.cli.single_run.run.run_queue", partial(run_queue, job_command=job_command))

    def run(*words: str, verb: str = "sft") -> int:
        start = ("--device", "cpu", "--model", "tiny") if verb == "sft" else ()
        monkeypatch.setattr(sys, "argv", ["hpcbench", verb, *start, *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    return run


def test_each_run_is_a_version_and_all_stand_in_one_suite(sft: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert sft("--dataset", "rows.jsonl") == 0
    assert sft("--dataset", "rows.jsonl", "--sft_type", "full") == 0
    assert sft("--dataset", "rows.jsonl", "--lora_rank", "4") == 0
    suite = read_suite(SuitePaths(Path("output").absolute(), "tiny"))
    assert suite is not None
    assert [experiment.name for experiment in suite.plan.experiments] == ["lora-v0", "full-v0", "lora-v1"]
    out = capsys.readouterr().out
    assert "train_loss 1.5, eval_loss 1.25, 4.00 samples/s" in out
    assert f"best checkpoint, step 1: {Path('output/tiny/lora-v1/train/checkpoints/best').absolute()}" in out


def test_an_evaluation_follows_its_training(sft: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert sft("--dataset", "rows.jsonl", "--eval_dataset", "arc", "--eval_limit", "3") == 0
    out = capsys.readouterr().out
    assert out.index("lora-v0 train: train_loss 1.5") < out.index("lora-v0 eval-arc: acc 0.75")


@pytest.mark.parametrize("words", [("--output_dir", "there"), ("--save-dir", "there"), ()])
def test_results_go_where_they_are_wanted(sft: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.setenv("HPCBENCH_SAVE_DIR", "elsewhere" if words else "there")
    monkeypatch.setattr("hpcbench.cli.single_run.run.run_queue", lambda *_, **__: EXIT_INTERRUPTED)
    assert sft("--dataset", "rows.jsonl", *words) == 130
    assert Path("there/tiny/lora-v0/train/job.json").is_file()


def test_the_suite_file_plans_the_same_jobs(sft: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        sft("--dataset", "rows.jsonl", "--learning_rate", "5e-5", "--eval_batch_size", "2", "--sft_type", "dora") == 0
    )
    (suite,) = load_suites([Path("output/tiny.yaml")])
    assert suite.experiments[0].args is not None
    request = read_json(JobPaths(Path("output/tiny/lora-v0/train")).request)
    assert request is not None
    assert suite.experiments[0].args.model_dump(mode="json") == request["args"]
    assert set(yaml.safe_load(Path("output/tiny.yaml").read_text())["experiment"][0]["args"]) == {
        "model_id_or_path", "dataset", "system", "learning_rate", "eval_batch_size", "use_dora",
    }  # fmt: skip


def test_the_same_name_is_not_run_twice(sft: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--dataset", "rows.jsonl", "--name", "first")
    assert (sft(*words), sft(*words)) == (0, 0)
    out = capsys.readouterr().out
    assert "tiny/first: already completed" in out
    assert out.count("train_loss 1.5, eval_loss 1.25, 4.00 samples/s") == 2
    assert out.count("started") == 1


def test_the_same_name_with_other_arguments_needs_force(sft: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--dataset", "rows.jsonl", "--name", "first")
    assert sft(*words) == 0
    before = Path("output/tiny.yaml").read_text()
    assert sft(*words, "--lora_rank", "4") == 1
    assert "args.lora_rank: 8 -> 4" in capsys.readouterr().err
    assert Path("output/tiny.yaml").read_text() == before
    assert sft(*words, "--lora_rank", "4", "--force") == 0
    assert len(yaml.safe_load(Path("output/tiny.yaml").read_text())["experiment"]) == 1


def test_an_interrupted_run_leaves_the_queue_and_its_name_takes_it_up_again(
    sft: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--dataset", "rows.jsonl", "--name", "first")
    with monkeypatch.context() as patch:
        patch.setattr("hpcbench.cli.single_run.run.run_queue", lambda *_, **__: EXIT_INTERRUPTED)
        assert sft(*words) == 130
    assert sft("--dataset", "rows.jsonl", "--name", "second") == 0
    assert "> tiny/first" not in capsys.readouterr().out.partition("tiny/second")[2]
    assert sft(*words) == 0
    assert "retry: was cancelled" in capsys.readouterr().out


def test_a_failed_run_says_why_and_fails(
    sft: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hpcbench.cli.single_run.run.run_queue", partial(run_queue, job_command=lambda *_: ["false"]))
    assert sft("--dataset", "rows.jsonl") == 1
    out = capsys.readouterr().out
    assert f"tiny/lora-v0/train: {JobState.FAILED}" in out
    assert "add --name lora-v0 to try the same again" in out


def test_a_cause_with_a_hint_is_told_without_a_traceback(tmp_path: Path) -> None:
    cause = Cause(type="WorkerError", message="no such optimizer", hint="try adamw_torch", lines=("Traceback",))
    log = JobPaths(tmp_path / "tiny" / "a" / "train").attempt(1).log
    log.parent.mkdir(parents=True)
    log.write_text("Traceback (most recent call last)\n")
    job = JobView(
        suite="tiny", experiment="a", job="train", state=JobState.FAILED, folder=log.parents[1],
        record=record(JobState.FAILED, cause=cause),
    )  # fmt: skip
    text = describe_job(job, ExperimentView(suite="tiny", name="a", cmd="sft", main=job))
    assert text.splitlines()[:4] == [
        "tiny/a train: failed", "  cause: no such optimizer", "  hint: try adamw_torch", f"  log: {log}",
    ]  # fmt: skip


def test_results_of_another_suite_are_left_alone(sft: Run, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(SuitePaths(Path("output"), "tiny").plan, {"suite": "tiny", "suite_file": "/home/me/tiny.yaml"})
    assert sft("--dataset", "rows.jsonl") == 2
    assert "/home/me/tiny.yaml" in capsys.readouterr().err


def test_nothing_is_made_for_a_command_line_that_is_wrong(sft: Run, tmp_path: Path) -> None:
    assert sft("--dataset", "rows.jsonl", "--lora_rnak", "4") == 2
    assert not (tmp_path / "output").exists()


def test_a_checkpoint_is_evaluated_beside_its_training(sft: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert sft("--dataset", "rows.jsonl") == 0
    capsys.readouterr()
    assert sft(*CKPT, "--eval_dataset", "arc", verb="eval") == 0
    assert sft(*CKPT, "--eval_dataset", "gsm8k", "--eval_limit", "3", verb="eval") == 0
    out = capsys.readouterr().out
    assert "tiny/lora-v0 eval-gsm8k: acc 0.75" in out
    assert "train  started" not in out
    suite = read_suite(SuitePaths(Path("output").absolute(), "tiny"))
    assert suite is not None
    assert [experiment.jobs for experiment in suite.plan.experiments] == [("train", "eval-arc", "eval-gsm8k")]
    request = read_json(JobPaths(Path("output/tiny/lora-v0/eval-arc")).request)
    assert request is not None
    assert request["train_folder"] == str(Path("output/tiny/lora-v0/train").absolute())
    assert request["eval_args"]["checkpoint"] == "last"
    (again,) = load_suites([Path("output/tiny.yaml")])
    assert [again.experiments[0].eval_args[name].limit for name in ("arc", "gsm8k")] == [None, 3]


def test_a_training_whose_data_changed_is_not_trained_again_for_an_evaluation(
    sft: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sft("--dataset", "rows.jsonl") == 0
    Path("rows.jsonl").write_text(ROWS * 2)
    assert sft(*CKPT, "--eval_dataset", "arc", "--force", verb="eval") == 1
    assert not Path("output/tiny/lora-v0/eval-arc").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--ckpt_dir", "nowhere"), "no such folder"),
        (("--ckpt_dir", "tiny"), "no training of hpcbench"),
        ((*CKPT, "--model", "tiny"), "--model: is the training's own"),
        ((*CKPT, "--device", "cuda"), "the training ran on cpu"),
        (CKPT, "nothing to evaluate"),
    ],
)
def test_a_checkpoint_that_cannot_be_evaluated_is_refused(
    sft: Run, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    assert sft("--dataset", "rows.jsonl") == 0
    data = () if words == CKPT else ("--eval_dataset", "arc")
    assert sft(*words, *data, verb="eval") == 2
    assert told in capsys.readouterr().err


def test_a_training_of_a_suite_is_evaluated_by_its_suite(sft: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert sft("--dataset", "rows.jsonl") == 0
    plan = SuitePaths(Path("output"), "tiny").plan
    write_json(plan, {**(read_json(plan) or {}), "suite_file": "/home/me/tiny.yaml"})
    assert sft(*CKPT, "--eval_dataset", "arc", verb="eval") == 2
    assert "/home/me/tiny.yaml" in capsys.readouterr().err
