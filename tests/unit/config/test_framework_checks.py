"""Trainings by other frameworks in plan: what they cannot express is refused with its line, nothing is dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.config.loading import load_suites
from hpcbench.errors import ConfigError
from hpcbench.schemas.request import FRAMEWORKS

SUITE = """\
cmd: {cmd}
requirements: {{gpu: 1, ddp: 1}}
args: {{model_id_or_path: Qwen/Qwen2.5-1.5B, dataset: gsm8k}}
experiment:
  - {{name: a, {more}}}
"""


def write(folder: Path, cmd: str, more: str = "info: {}") -> Path:
    file = folder / "s.yaml"
    file.write_text(SUITE.format(cmd=cmd, more=more))
    return file


def problems(folder: Path, cmd: str, more: str) -> str:
    file = write(folder, cmd, more)
    with pytest.raises(ConfigError) as error:
        load_suites([file])
    return str(error.value).replace(str(file), "s.yaml")


@pytest.mark.parametrize("cmd", FRAMEWORKS)
def test_a_training_by_a_framework_is_a_training(cmd: str, tmp_path: Path) -> None:
    (experiment,) = load_suites([write(tmp_path, cmd)])[0].experiments
    assert (experiment.cmd, experiment.framework) == ("sft", cmd)


def test_hpcbenchs_own_training_has_no_framework(tmp_path: Path) -> None:
    (experiment,) = load_suites([write(tmp_path, "sft")])[0].experiments
    assert (experiment.framework, experiment.framework_args) == (None, None)


def test_a_method_that_the_framework_has_no_word_for_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, "trl", "args: {sft_type: adalora}") == (
        "s.yaml:5: experiment[a].args.sft_type: `sft_type` with `cmd: trl`: TRL trains lora and full alone\n"
        "  hint: take `cmd: sft`"
    )


def test_an_argument_that_the_framework_has_no_setting_for_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, "trl", "args: {lora_lr_ratio: 16}") == (
        "s.yaml:5: experiment[a].args.lora_lr_ratio: `lora_lr_ratio` with `cmd: trl`: TRL has no setting for it\n"
        "  hint: remove it, or take `cmd: sft`"
    )


def test_an_argument_at_its_default_asks_for_nothing(tmp_path: Path) -> None:
    load_suites([write(tmp_path, "trl", "args: {packing: false, lora_bias_trainable: none}")])


def test_a_setting_that_comes_from_an_argument_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, "llamafactory", "args: {framework_args: {cutoff_len: 5}}") == (
        "s.yaml:5: experiment[a].args.framework_args: `cutoff_len` with `cmd: llamafactory`: it is written by "
        "hpcbench from the arguments of the suite\n  hint: set the argument that it comes from"
    )


def test_settings_of_the_framework_alone_are_taken(tmp_path: Path) -> None:
    (experiment,) = load_suites([write(tmp_path, "ms_swift", "args: {framework_args: {template: qwen2_5}}")])[
        0
    ].experiments
    assert experiment.framework_args is not None
    assert experiment.framework_args.framework_args == {"template": "qwen2_5"}


def test_settings_of_a_framework_are_refused_where_hpcbench_trains(tmp_path: Path) -> None:
    assert "`framework_args` is only for `cmd: llamafactory`" in problems(
        tmp_path, "sft", "args: {framework_args: {template: qwen}}"
    )


def test_one_process_runs_on_each_gpu(tmp_path: Path) -> None:
    assert problems(tmp_path, "trl", "requirements: {gpu: 4, ddp: 1}") == (
        "s.yaml:5: experiment[a].requirements.gpu: `gpu` with `cmd: trl`: TRL runs one process on each GPU\n"
        "  hint: requirements: {gpu: 4, ddp: 4}"
    )


def test_axolotl_is_refused_on_the_cpu(tmp_path: Path) -> None:
    assert problems(tmp_path, "axolotl", "device: cpu, requirements: {gpu: 0}, eval_requirements: {gpu: 0}") == (
        "s.yaml:5: experiment[a].device: `device` with `cmd: axolotl`: axolotl cannot be told to train on the CPU\n"
        "  hint: device: cuda"
    )


def test_a_matrix_of_the_suite_is_that_of_its_frameworks_experiments(tmp_path: Path) -> None:
    file = write(tmp_path, "trl")
    file.write_text(f"matrix: {{lora_rank: [4, 8]}}\n{file.read_text()}")
    suite = load_suites([file])[0]
    assert [experiment.args.lora_rank for experiment in suite.experiments if experiment.args is not None] == [4, 8]
