"""`ckpt_from`: which experiments take whose model, what they inherit of it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.plan.requests import plan_suite
from hpcbench.schemas.request import JobRequest
from hpcbench.schemas.suite import Suite
from tests.support.suite_writer import HEAD, load, refusal

EXPORT = "{name: merged, cmd: export, args: {ckpt_from: lora}}"


def takers(suite: Suite) -> dict[str, str | None]:
    return {experiment.name: experiment.ckpt_from for experiment in suite.experiments}


def plan(suite: Suite) -> dict[tuple[str, str], JobRequest]:
    return {request.ref: request for request in plan_suite(suite, save_dir=Path("/logs"), inputs={})}


def test_an_export_takes_the_model_of_a_training_and_evals_take_its(tmp_path: Path) -> None:
    jobs = plan(
        load(
            tmp_path,
            HEAD
            + """
experiment:
- {name: lora, eval_dataset: arc}
- {name: merged, cmd: export, eval_dataset: arc, args: {ckpt_from: lora}}
- {name: awq, cmd: export, eval_dataset: arc, args: {ckpt_from: merged, quant_bits: 4, quant_method: awq}}
""",
        )
    )
    assert {ref: request.parent for ref, request in jobs.items()} == {
        ("lora", "train"): None,
        ("lora", "eval-arc"): ("lora", "train"),
        ("merged", "export"): ("lora", "train"),
        ("merged", "eval-arc"): ("merged", "export"),
        ("awq", "export"): ("merged", "export"),
        ("awq", "eval-arc"): ("awq", "export"),
    }
    assert jobs["merged", "export"].train_fingerprint == jobs["lora", "train"].fingerprint
    assert jobs["awq", "eval-arc"].train_fingerprint == jobs["awq", "export"].fingerprint
    assert jobs["awq", "export"].parent_name == "the export job of merged"
    assert jobs["awq", "eval-arc"].parent_name == "its export job"


def test_who_takes_a_model_comes_after_it_wherever_it_is_written(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        HEAD
        + f"experiment: [{EXPORT}, {{name: full, sft_type: full}}, {{name: lora}}]".replace(
            "sft_type: full", "args: {sft_type: full}"
        ),
    )
    assert takers(suite) == {"lora": None, "merged": "lora", "full": None}


def test_the_model_is_the_makers_and_not_the_one_that_others_share(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        HEAD
        + """
experiment:
- {name: lora, args: {model_type: qwen2.5-1.5b-instruct, system: Be brief., quantization_bit: 4}}
- {name: merged, cmd: export, args: {ckpt_from: lora, dtype: fp32}}
""",
    )
    lora, merged = suite.experiments
    assert lora.args is not None
    assert merged.args is not None
    assert (merged.args.model_type, merged.args.system) == ("qwen2.5-1.5b-instruct", "Be brief.")
    assert (merged.args.dtype, merged.args.quantization_bit) == ("fp32", 0)


def test_another_model_than_the_makers_is_refused(tmp_path: Path) -> None:
    text = (
        HEAD
        + "experiment: [{name: lora}, {name: m, cmd: export, args: {ckpt_from: lora, model_type: qwen2.5-1.5b-instruct}}]"
    )
    assert refusal(tmp_path, text) == (
        "demo.yaml:3: experiment[m].args.model_type: 'qwen2.5-1.5b-instruct' is not what 'lora' makes its model of, which is "
        "'qwen2.5-7b-instruct'\n  hint: leave it out: `ckpt_from` says which model it is"
    )


def test_repeats_and_matrices_are_exported_one_by_one(tmp_path: Path) -> None:
    lora = "{name: lora, repeats: 2, matrix: {lora_rank: [8, 16]}}"
    suite = load(tmp_path, HEAD + f"experiment: [{lora}, {EXPORT}]")
    assert takers(suite) == {
        **{f"lora-lora_rank={rank}-seed{seed}": None for rank in (8, 16) for seed in (0, 1)},
        **{f"merged-lora_rank={r}-seed{s}": f"lora-lora_rank={r}-seed{s}" for r in (8, 16) for s in (0, 1)},
    }
    last = suite.experiments[-1]
    assert (last.base_experiment, last.repeat) == ("merged-lora_rank=16", 1)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("lora-lora_rank=8", {"merged-seed0": "lora-lora_rank=8-seed0", "merged-seed1": "lora-lora_rank=8-seed1"}),
        ("lora-lora_rank=8-seed1", {"merged": "lora-lora_rank=8-seed1"}),
    ],
)
def test_one_variant_or_one_run_may_be_named(tmp_path: Path, named: str, expected: dict[str, str]) -> None:
    lora = "{name: lora, repeats: 2, matrix: {lora_rank: [8, 16]}}"
    suite = load(tmp_path, HEAD + f"experiment: [{lora}, {EXPORT.replace('ckpt_from: lora', f'ckpt_from: {named}')}]")
    assert {name: maker for name, maker in takers(suite).items() if maker is not None} == expected


def test_a_matrix_may_vary_the_maker_and_the_bits(tmp_path: Path) -> None:
    both = "{name: q, cmd: export, matrix: {ckpt_from: [lora, dora], quant_bits: [4, 8]}, args: {quant_method: gptq}}"
    suite = load(tmp_path, HEAD + f"experiment: [{{name: lora}}, {{name: dora, args: {{use_dora: true}}}}, {both}]")
    assert [maker for maker in takers(suite).values() if maker is not None] == ["lora", "lora", "dora", "dora"]


@pytest.mark.parametrize(
    ("experiments", "message"),
    [
        (
            f"[{{name: lore}}, {EXPORT}]",
            "no experiment 'lora' in this suite\n  expected: an experiment that trains, exports, or is a command",
        ),
        (
            "[{name: a, cmd: export, args: {ckpt_from: b}}, {name: b, cmd: export, args: {ckpt_from: a}}]",
            "no experiment can take its own model: a -> b -> a",
        ),
        (f"[{EXPORT.replace('ckpt_from: lora', 'ckpt_from: merged')}]", "take its own model: merged -> merged"),
        (
            f"[{{name: lora, cmd: eval, eval_dataset: arc}}, {EXPORT}]",
            "'lora' makes no model: it is of `cmd: eval`",
        ),
        (
            f"[{{name: lora, cmd: command, args: {{command: 'true'}}}}, {EXPORT}]",
            "'lora' makes no model: it is a command without output_model",
        ),
        (f"[{{name: lora, args: {{save_strategy: 'no'}}}}, {EXPORT}]", "leaves no checkpoint to take"),
        (
            f"[{{name: lora}}, {EXPORT.replace('cmd', 'repeats: 2, cmd')}]",
            "`repeats` with `ckpt_from`: it runs once for each model that it takes",
        ),
        ("[{name: lora, args: {ckpt_from: other}}]", "`ckpt_from` is only for `cmd: command` and `cmd: export` and"),
        ("[{name: lora, args: {quant_n_samples: 4}}]", "`quant_n_samples` is only for `cmd: export`"),
    ],
)
def test_what_cannot_be_taken_is_refused(tmp_path: Path, experiments: str, message: str) -> None:
    assert message in refusal(tmp_path, HEAD + f"experiment: {experiments}")


def test_an_export_that_calibrates_needs_rows(tmp_path: Path) -> None:
    text = "cmd: export\nargs: {model_type: qwen2.5-1.5b-instruct}\nexperiment: [{name: awq, args: {quant_bits: 4}}]"
    assert refusal(tmp_path, text) == (
        "demo.yaml:3: experiment[awq].args.quant_bits: `quant_method: awq` calibrates on rows, and there is no dataset\n"
        "  expected: `args.dataset`\n  hint: args: {dataset: train.jsonl}"
    )


def test_an_export_runs_in_one_process(tmp_path: Path) -> None:
    text = HEAD + "requirements: {gpu: 2, ddp: 2}\nexperiment: [{name: lora}, " + EXPORT + "]"
    assert "ddp 2: an export runs in one process, on all of its GPUs" in refusal(tmp_path, text)


def test_an_eval_of_an_export_has_one_model(tmp_path: Path) -> None:
    export = "{name: m, cmd: export, eval_dataset: arc, eval_args: {checkpoint: last}, args: {ckpt_from: lora}}"
    assert "an export makes one model" in refusal(tmp_path, HEAD + f"experiment: [{{name: lora}}, {export}]")


def test_names_and_folders_of_a_maker_do_not_decide_the_result(tmp_path: Path) -> None:
    one = plan(load(tmp_path, HEAD + f"experiment: [{{name: lora}}, {EXPORT}]"))
    other = plan(load(tmp_path, HEAD + f"experiment: [{{name: dora}}, {EXPORT.replace('lora', 'dora')}]"))
    assert one["merged", "export"].fingerprint == other["merged", "export"].fingerprint
    changed = plan(load(tmp_path, HEAD + f"experiment: [{{name: lora, args: {{lora_rank: 4}}}}, {EXPORT}]"))
    assert one["merged", "export"].fingerprint != changed["merged", "export"].fingerprint
