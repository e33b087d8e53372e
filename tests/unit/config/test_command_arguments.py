"""What `cmd: dpo`, its sisters and `cmd: pt` set by themselves, and what contradicts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcbench.config.loading import load_suites
from hpcbench.errors import ConfigError
from hpcbench.schemas.suite import Experiment

PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}


def load(folder: Path, cmd: str, row: dict[str, Any] = PAIR, **args: Any) -> Experiment:
    (folder / "rows.jsonl").write_text((json.dumps(row) + "\n") * 4, encoding="utf-8")
    given = {"model_type": "qwen2.5-7b-instruct", "dataset": "rows.jsonl", "batch_size": 2, **args}
    suite = {"cmd": cmd, "args": given, "experiment": [{"name": "a"}]}
    (folder / "suite.json").write_text(json.dumps(suite), encoding="utf-8")
    return load_suites([folder / "suite.json"])[0].experiments[0]


def refusal(folder: Path, cmd: str, row: dict[str, Any] = PAIR, **args: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, cmd, row, **args)
    return str(caught.value).removeprefix(f"{folder}/suite.json:1: ")


@pytest.mark.parametrize("loss", ["dpo", "orpo", "simpo", "kto", "cpo"])
def test_a_loss_may_be_the_command(tmp_path: Path, loss: str) -> None:
    for found in (load(tmp_path, loss), load(tmp_path, "rlhf", rlhf_type=loss)):
        assert found.cmd == "rlhf"
        assert found.args is not None
        assert found.args.rlhf_type == loss


def test_rlhf_without_a_loss_is_dpo_as_in_swift(tmp_path: Path) -> None:
    args = load(tmp_path, "rlhf").args
    assert args is not None
    assert (args.rlhf_type, args.effective_beta, args.losses) == ("dpo", 0.1, (("sigmoid", 1.0),))


def test_simpo_has_swifts_defaults(tmp_path: Path) -> None:
    args = load(tmp_path, "simpo").args
    assert args is not None
    assert (args.effective_beta, args.simpo_gamma, args.cpo_alpha) == (2.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("given", "losses"),
    [
        ({"sft_beta": 0.1}, (("sigmoid", 0.9), ("sft", 0.1))),
        ({"rpo_alpha": 0.2, "loss_type": "ipo"}, (("ipo", 1.0), ("sft", 0.2))),
        ({"loss_type": "sigmoid,bco_pair", "loss_weights": "0.8 0.2"}, (("sigmoid", 0.8), ("bco_pair", 0.2))),
        ({"loss_type": ["hinge"]}, (("hinge", 1.0),)),
    ],
)
def test_mixed_losses(tmp_path: Path, given: dict[str, Any], losses: object) -> None:
    args = load(tmp_path, "dpo", **given).args
    assert args is not None
    assert args.losses == losses


@pytest.mark.parametrize("kind", ["rm", "ppo", "grpo", "gkd"])
def test_a_loss_that_hpcbench_does_not_have_is_refused_with_a_way_on(tmp_path: Path, kind: str) -> None:
    text = refusal(tmp_path, "rlhf", rlhf_type=kind)
    assert text.startswith(f"args.rlhf_type: `rlhf_type: {kind}` is known but not supported by this version: ")
    assert "  expected: dpo, orpo, simpo, kto, cpo\n  hint: take `cmd: dpo` with rows that have a chosen and a" in text
    assert text.count("hint: ") == 1
    assert "generates no answers while it trains" in refusal(tmp_path, kind)


@pytest.mark.parametrize(
    ("cmd", "given", "message"),
    [
        ("kto", {"rlhf_type": "dpo"}, "`cmd: kto` contradicts `rlhf_type: dpo`\n  hint: keep one of them"),
        ("kto", {"batch_size": 1}, "rlhf_type kto"),
        ("kto", {"batch_size": 2, "eval_batch_size": 1}, "set batch_size and eval_batch_size to 2 or more"),
        ("simpo", {"loss_type": "sigmoid"}, "loss_type sigmoid is none of simpo\n  hint: take simpo"),
        ("dpo", {"loss_type": "exo_pair"}, "loss_type exo_pair needs a label_smoothing above 0, such as 0.001"),
        ("dpo", {"label_smoothing": 0.1}, "`label_smoothing` has no effect in any experiment"),
        ("dpo", {"loss_type": "sigmoid ipo", "loss_weights": [1]}, "1 loss_weights for 2 values of loss_type"),
        ("dpo", {"packing": True}, "packing cannot go with rlhf_type dpo, whose loss takes whole answers one by one"),
        ("dpo", {"simpo_gamma": 0.5}, "`simpo_gamma` has no effect in any experiment\n  expected: rlhf_type: simpo"),
        ("dpo", {"ref_model": "./gone"}, "no such folder: './gone'"),
        ("dpo", {"lora_target_modules": ["lm_head"]}, "rlhf_type dpo"),
        ("dpo", {"target_regex": ".*(lm_head|q_proj)"}, "leave lm_head out"),
        ("dpo", {"max_completion_length": 64}, "`max_completion_length` is known but not supported by this version"),
        ("sft", {"truncation_strategy": "split"}, "truncation_strategy split cuts answers from their questions"),
    ],
)
def test_what_contradicts_a_loss_is_refused(tmp_path: Path, cmd: str, given: dict[str, Any], message: str) -> None:
    row = {"query": "q", "response": "a"} if cmd == "sft" else PAIR
    assert message in refusal(tmp_path, cmd, row, **given)


def test_an_argument_of_a_loss_needs_a_training_from_preferences(tmp_path: Path) -> None:
    text = refusal(tmp_path, "sft", {"query": "q", "response": "a"}, beta=0.2)
    assert "`beta` has no effect in any experiment\n  expected: cmd: rlhf" in text


def test_a_row_without_its_rejected_answer_is_refused_with_file_and_line(tmp_path: Path) -> None:
    text = refusal(tmp_path, "dpo", {"prompt": "q", "chosen": "a"})
    where = f"args.dataset: {tmp_path}/rows.jsonl: line 1"
    assert text.startswith(f"{where}: no column 'rejected'; found: prompt, chosen\n  expected: messages + ")


def test_rows_of_preferences_are_refused_elsewhere_with_a_way_on(tmp_path: Path) -> None:
    assert "is for preference tuning (`cmd: dpo` and its sisters)" in refusal(tmp_path, "sft")


def test_a_baseline_beside_preferences_reads_no_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(PAIR) + "\n", encoding="utf-8")
    suite = {
        "cmd": "rlhf",
        "args": {"model_type": "qwen2.5-7b-instruct", "dataset": "rows.jsonl", "rlhf_type": "dpo"},
        "eval_dataset": ["arc"],
        "experiment": [{"name": "dpo"}, {"name": "base", "cmd": "eval"}],
    }
    (tmp_path / "suite.json").write_text(json.dumps(suite), encoding="utf-8")
    found = load_suites([tmp_path / "suite.json"])[0].experiments
    assert [each.args.rlhf_type for each in found if each.args is not None] == ["dpo", None]


def test_pt_has_swifts_defaults_and_keeps_what_is_given(tmp_path: Path) -> None:
    args = load(tmp_path, "pt", {"text": "t"}).args
    assert args is not None
    found = (args.plain_text, args.sft_type, args.eval_steps, args.truncation_strategy)
    assert found == (True, "full", 500, "split")
    given = load(tmp_path, "pt", {"text": "t"}, sft_type="lora", eval_steps=5, lazy_tokenize=True).args
    assert given is not None
    found = (given.plain_text, given.sft_type, given.eval_steps, given.truncation_strategy)
    assert found == (True, "lora", 5, "truncation_left")
    assert given.lora_target_modules == ("ALL",)


def test_pretraining_takes_the_loss_scale_that_ms_swift_has_for_it(tmp_path: Path) -> None:
    args = load(tmp_path, "pt", {"text": "some words"}, loss_scale="all", use_chat_template=False).args
    assert args is not None
    assert (args.loss_on_prompt, args.loss_on_all_rounds) == (True, False)
