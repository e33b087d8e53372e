"""What a push to a model hub is asked for, and what is refused before a job waits for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpcbench.hub.repository import command_by_hand, repository_error, repository_of
from hpcbench.job.hub_push import build_folder, choose_sources
from hpcbench.plan.fingerprint import fingerprint
from hpcbench.plan.requests import plan_suite
from hpcbench.report.facts import facts_of
from hpcbench.report.notes_and_warnings import warnings_of
from hpcbench.retention import kept_names
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.metrics import Parameters, TrainMetrics
from hpcbench.storage.paths import JobPaths
from tests.support.job_cases import experiment as make_experiment
from tests.support.job_cases import record, suite
from tests.support.report_cases import quickstart
from tests.support.suite_writer import HEAD, load, load_one, refusal

ARGS = SftArgs(model_type="qwen2.5-7b-instruct", dataset=("alpaca-zh", "/data/own|rows.jsonl"), push_to_hub=True)


def make_metrics(best: str | None = "checkpoints/best", last: str | None = "checkpoints/last") -> TrainMetrics:
    return TrainMetrics(
        parameters=Parameters(trainable=1, total=2),
        num_steps=4,
        num_samples=8,
        num_tokens=80,
        eval_loss=1.25,
        best_checkpoint=best,
        last_checkpoint=last,
    )


def test_the_defaults_are_ms_swifts() -> None:
    args = SftArgs(model_type="qwen2.5-7b-instruct")
    assert (args.push_to_hub, args.hub_model_id, args.hub_private_repo) == (False, None, True)
    assert args.push_hub_strategy == "push_best"
    assert repository_of(args) == "qwen2.5-7b-instruct-lora"


@pytest.mark.parametrize("name", ["My Model (v2)", "..", "a--b", "名字", "x" * 200])
def test_the_default_name_is_one_that_hubs_take(name: str) -> None:
    assert repository_error(repository_of(SftArgs(model_type=name, sft_type="full"))) is None


@pytest.mark.parametrize("name", ["a b", "a/b/c", "-a", "a.", "a..b", "a--b", "a.git", "/a", "a" * 97, ""])
def test_a_bad_name_is_refused(tmp_path: Path, name: str) -> None:
    text = f'{HEAD}experiment: [{{name: a, args: {{push_to_hub: true, hub_model_id: "{name}"}}}}]\n'
    assert "hub_model_id" in refusal(tmp_path, text)


def test_a_token_is_refused_and_never_shown(tmp_path: Path) -> None:
    text = f"{HEAD}experiment: [{{name: a, args: {{hub_token: hf_secret}}}}]\n"
    shown = refusal(tmp_path, text)
    assert "a token in a suite would be copied into job files, records and reports" in shown
    assert "hf auth login" in shown
    shown += refusal(tmp_path, f"{HEAD}experiment: [{{name: a}}]\n", "args.hub_token=hf_secret")
    shown += refusal(tmp_path, f"{HEAD}env: {{HF_TOKEN: hf_secret}}\nexperiment: [{{name: a}}]\n")
    assert "`HF_TOKEN` in a suite would be copied" in shown
    assert "hf_secret" not in shown
    assert load_one(tmp_path, f"{HEAD}experiment: [{{name: a, args: {{hub_token: null}}}}]\n").args is not None


def test_two_experiments_do_not_push_to_the_same_repository(tmp_path: Path) -> None:
    body = "experiment: [{name: a}, {name: b, args: {lora_rank: 16}}]\n"
    head = HEAD.replace("}", ", push_to_hub: true}")
    assert "'b' would push to 'qwen2.5-7b-instruct-lora', where 'a' pushes to" in refusal(tmp_path, head + body)
    own = "experiment: [{name: a}, {name: b, args: {hub_model_id: b}}, {name: c, args: {push_to_hub: false}}]\n"
    assert len(load(tmp_path, head + own).experiments) == 3
    assert "`repeats` and `push_to_hub` do not go together" in refusal(
        tmp_path, f"{head}repeats: 2\nexperiment: [{{name: a}}]\n"
    )


def test_a_push_needs_weights(tmp_path: Path) -> None:
    text = f"{HEAD}experiment: [{{name: a, args: {{push_to_hub: true, save_strategy: 'no'}}}}]\n"
    assert "`save_strategy: no` leaves no weights to push" in refusal(tmp_path, text)


def test_where_weights_go_is_not_in_the_fingerprint(tmp_path: Path) -> None:
    plain, pushed, other = (
        plan_suite(suite(make_experiment("a", args=args)), save_dir=tmp_path, inputs={})[0]
        for args in (
            ARGS.model_copy(update={"push_to_hub": False}),
            ARGS.model_copy(update={"hub_model_id": "x", "push_hub_strategy": "end"}),
            ARGS.model_copy(update={"lora_rank": 16}),
        )
    )
    assert fingerprint(plain, {}) == fingerprint(pushed, {}) != fingerprint(other, {})


def test_the_command_by_hand() -> None:
    folder = Path("/logs/a b")
    assert command_by_hand(ARGS, folder) == "hf upload qwen2.5-7b-instruct-lora '/logs/a b' . --private"
    public = ARGS.model_copy(update={"hub_private_repo": False, "hub_model_id": "me/x"})
    assert command_by_hand(public, folder) == "hf upload me/x '/logs/a b' ."
    modelscope = ARGS.model_copy(update={"hub": "modelscope"})
    assert command_by_hand(modelscope, folder) == "modelscope upload OWNER/qwen2.5-7b-instruct-lora '/logs/a b'"


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("push_best", {"": "best"}),
        ("push_last", {"": "last"}),
        ("end", {"": "last"}),
        ("checkpoint", {"": "best", "last-checkpoint": "last"}),
        (
            "all_checkpoints",
            {"": "best", **{f"checkpoints/{name}": name for name in ("best", "last", "step-2")}},
        ),
    ],
)
def test_strategies_choose_checkpoints(tmp_path: Path, strategy: str, expected: dict[str, str]) -> None:
    job = JobPaths(tmp_path)
    for name in ("best", "last", "step-2", "hub"):
        (job.checkpoints / name).mkdir(parents=True)
    args = ARGS.model_copy(update={"push_hub_strategy": strategy})
    found = choose_sources(args, make_metrics(), job)
    assert {place: path.name for place, path in found.items()} == expected


def test_the_other_checkpoint_stands_in_for_one_that_was_not_kept(tmp_path: Path) -> None:
    job = JobPaths(tmp_path)
    assert choose_sources(ARGS, make_metrics(best=None), job)[""].name == "last"
    last = ARGS.model_copy(update={"push_hub_strategy": "push_last"})
    assert choose_sources(last, make_metrics(last=None), job)[""].name == "best"
    with pytest.raises(FileNotFoundError, match="no checkpoint was kept"):
        choose_sources(ARGS, make_metrics(best=None, last=None), job)


def test_the_folder_holds_weights_and_tokenizer_and_no_state(tmp_path: Path) -> None:
    request = plan_suite(suite(make_experiment("a", args=ARGS)), save_dir=tmp_path, inputs={})[0]
    request = request.model_copy(update={"source_of": {"learning_rate": "default", "lora_rank": "suite"}})
    job = JobPaths(tmp_path / "tuners" / "a" / "train")
    names = (
        "config.json",
        "model.safetensors",
        "tokenizer.model",
        "optimizer.pt",
        "trainer_state.json",
        "rng_state.pth",
    )
    for place in ("best", "last"):
        (job.checkpoints / place).mkdir(parents=True)
        for name in names:
            (job.checkpoints / place / name).write_text("{}")
    (job.checkpoints / "best" / "config.json").write_text(f'{{"from": "{job.folder}/resume", "size": 3}}')
    build_folder(request, record(metrics=make_metrics().model_dump(mode="json")), job)
    assert sorted(path.name for path in job.hub.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "tokenizer.model",
    ]  # fmt: skip
    assert (job.hub / "config.json").read_text() == '{\n  "from": "a/resume",\n  "size": 3\n}\n'
    assert (job.hub / "model.safetensors").samefile(job.checkpoints / "best" / "model.safetensors")
    card = (job.hub / "README.md").read_text()
    assert card.startswith(
        "---\nbase_model: Qwen/Qwen2.5-7B-Instruct\ndatasets:\n- llm-wizard/alpaca-gpt4-data-zh\nlibrary_name: transformers\n"
    )
    assert "| Data | alpaca-zh, own\\|rows.jsonl |" in card
    assert "| lora_rank | 8 |" in card
    assert "learning_rate" not in card
    assert "| eval_loss (best checkpoint) | 1.2500 |" in card


def test_what_waits_for_a_push_by_hand_is_not_cleaned_away() -> None:
    pushed = make_metrics()
    waiting = pushed.model_copy(update={"unknown": {"pushed_to": "not pushed: offline"}})
    assert kept_names(pushed, "best") == {"best"}
    assert kept_names(waiting, "best") == {"best", "hub"}
    assert kept_names(waiting, "none") == set()


def test_the_report_names_the_experiments_whose_weights_are_not_on_the_hub() -> None:
    facts = [facts_of(view) for view in quickstart().suites[0].experiments]
    trained = next(found for found in facts if found.train is not None)
    assert trained.train is not None
    assert not any("hf upload" in warning for warning in warnings_of(facts))
    reason = "not pushed: ConnectError; by hand: hf upload x /logs/hub ."
    waiting = replace(trained, train=trained.train.model_copy(update={"unknown": {"pushed_to": reason}}))
    assert f"{trained.view.name}: weights {reason}" in warnings_of([waiting])
