"""What an export cannot make is refused by plan: of a maker's model, of a folder, of arguments it does not read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.suite_writer import HEAD, load, refusal

MERGED = "{name: merged, cmd: export, args: {ckpt_from: lora}}"

ASKED = "{name: i, cmd: infer, args: {ckpt_from: lora, infer_backend: vllm, val_dataset: alpaca-en}}"


@pytest.mark.parametrize(
    ("experiments", "message"),
    [
        (f"[{{name: lora, args: {{sft_type: full}}}}, {MERGED}]", "'lora' makes a whole model"),
        (
            f"[{{name: lora, args: {{sft_type: adapter}}}}, {MERGED}]",
            "sft_type adapter of 'lora' trains cannot be merged",
        ),
        (f"[{{name: lora}}, {MERGED}, {{name: two, cmd: export, args: {{ckpt_from: merged}}}}]", "makes a whole model"),
        (
            f"[{{name: lora, args: {{lora_rank: 64}}}}, {ASKED}]",
            "the adapter of 'lora' has rank 64, and `vllm_max_lora_rank` is 16",
        ),
        (f"[{{name: lora}}, {MERGED.replace('lora}', 'lora, push_to_hub: true}')}]", "`push_to_hub` has no effect"),
    ],
)
def test_what_an_export_cannot_do_is_refused(tmp_path: Path, experiments: str, message: str) -> None:
    assert message in refusal(tmp_path, HEAD + f"experiment: {experiments}")


def test_merge_lora_and_save_is_merge_lora_of_an_export(tmp_path: Path) -> None:
    text = f"experiment: [{{name: lora}}, {MERGED.replace('lora}', 'lora, merge_lora_and_save: true}')}]"
    export = load(tmp_path, HEAD + text).experiments[1].export
    assert export is not None
    assert export.merge_lora is True


def test_settings_that_answers_alone_read_may_stand_beside_a_training(tmp_path: Path) -> None:
    asked = "dataset: alpaca-en, max_new_tokens: 12, temperature: 0.5}"
    shared = HEAD.replace("cmd: sft", "cmd: infer").replace("dataset: ms-agent}", asked)
    found = load(tmp_path, shared + "experiment: [{name: base}, {name: t, cmd: sft}]")
    assert [experiment.cmd for experiment in found.experiments] == ["infer", "sft"]


def test_settings_of_exports_may_stand_beside_a_training_and_need_one_export(tmp_path: Path) -> None:
    shared = HEAD.replace("ms-agent}", "ms-agent, quant_n_samples: 8}")
    quantised = MERGED.replace("lora}", "lora, quant_bits: 4, quant_method: gptq}")
    load(tmp_path, shared + f"experiment: [{{name: lora}}, {quantised}]")
    assert "`quant_n_samples` is only for `cmd: export`" in refusal(tmp_path, shared + "experiment: [{name: lora}]")
