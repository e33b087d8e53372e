"""Suites: layers, types, files; see test_config_errors.py for what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hpcbench.config.loading import load_suites
from hpcbench.data.columns import SHAPES, Shape
from hpcbench.schemas.durations import parse_minutes
from tests.support.model_folders import write_model
from tests.support.places import GOLDEN
from tests.support.suite_writer import HEAD, load, load_one, messages_of, refusal

EXAMPLE = GOLDEN / "config" / "seed_example.json"


RUNNABLE = ["args.model_type=qwen2.5-7b-instruct"]
"""The example's own model cannot be loaded any more."""


def test_the_example_suite_loads_unchanged_with_a_model_that_can_be_loaded() -> None:
    (suite,) = load_suites([EXAMPLE], overrides=RUNNABLE)
    assert suite.name == "seed_example"
    lora, plus = suite.experiments
    assert (lora.name, plus.name) == ("lora", "lora+")
    assert (lora.cmd, lora.device, lora.requirements.gpu, lora.requirements.ddp) == ("sft", "cuda", 1, 1)
    assert lora.eval_dataset == ("ceval", "gsm8k", "arc")
    assert set(lora.eval_args) == {"ceval", "gsm8k", "arc"}
    args = plus.args
    assert args is not None
    assert (args.model_type, args.dataset, args.train_dataset_mix_ratio) == ("qwen2.5-7b-instruct", ("ms-agent",), 2.0)
    assert (args.learning_rate, args.use_flash_attn, args.num_train_epochs) == (5e-5, True, 2.0)
    assert (args.sft_type, args.lora_target_modules, args.lora_rank, args.lora_lr_ratio) == ("lora", ("ALL",), 8, 16.0)
    assert (args.train_dataset_sample, args.val_dataset_sample, args.check_dataset_strategy) == (-1, 5000, "none")
    assert lora.args is not None
    assert lora.args.lora_lr_ratio is None
    assert (plus.source_of["lora_lr_ratio"], plus.source_of["batch_size"], plus.source_of["seed"]) == (
        "experiment",
        "suite",
        "default",
    )


def test_every_argument_of_the_example_is_written_as_it_is_in_yaml(tmp_path: Path) -> None:
    import yaml

    value = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    (tmp_path / "seed_example.yaml").write_text(yaml.safe_dump(value), encoding="utf-8")
    (from_yaml,) = load_suites([tmp_path / "seed_example.yaml"], overrides=RUNNABLE)
    (from_json,) = load_suites([EXAMPLE], overrides=RUNNABLE)
    assert [e.args for e in from_yaml.experiments] == [e.args for e in from_json.experiments]


def test_the_later_layer_wins_key_by_key(tmp_path: Path) -> None:
    text = """
    cmd: sft
    requirements: {gpu: 2, time: 1h}
    args: {model: org/m, dataset: d, lora_rank: 8, lora_alpha: 16, system: hello}
    env: {A: one, B: two}
    experiment:
      - name: a
        requirements: {ddp: 2}
        args: {lora_rank: 16, system: null}
        env: {B: 2.50}
    """
    experiment = load_one(
        tmp_path, text, "args.lora_alpha=64", "requirements.time=2h", "env.C=yes please", "args.lora_rank=null"
    )
    args = experiment.args
    assert args is not None
    assert (args.lora_rank, args.lora_alpha, args.system) == (8, 64.0, None)
    assert (experiment.requirements.gpu, experiment.requirements.ddp, experiment.requirements.time_min) == (2, 2, 120)
    assert dict(experiment.env) == {"A": "one", "B": "2.50", "C": "yes please"}
    sources = {name: experiment.source_of[name] for name in ("lora_rank", "lora_alpha", "system", "dataset")}
    assert sources == {"lora_rank": "default", "lora_alpha": "--set", "system": "default", "dataset": "suite"}


def test_sections_can_be_replaced_by_null_and_values_by_values(tmp_path: Path) -> None:
    text = """
    cmd: sft
    requirements: {gpu: 4, ddp: 4, partition: big}
    args: {model: org/m, dataset: d, lora_rank: 64}
    eval_dataset: [gsm8k, arc]
    experiment:
      - {name: a, requirements: null, eval_dataset: null}
      - {name: b, args: null, cmd: command}
      - name: c
        args:
    """
    text = text.replace("cmd: command}", "cmd: command, eval_dataset: []}").replace(
        "args: null", "args: {command: ls, lora_rank: null}"
    )
    a, b, c = load(tmp_path, text).experiments
    assert (a.requirements.gpu, a.requirements.partition, a.eval_dataset) == (1, None, ())
    assert b.command is not None
    assert b.args is not None
    assert (b.command.command, b.args.lora_rank) == (("ls",), 8)
    assert c.args is not None
    assert c.args.lora_rank == 64
    (bare,) = load(
        tmp_path, "cmd: command\nargs: {dataset: d}\nexperiment: [{name: a, args: null}]", "args.command=[ls, -l]"
    ).experiments
    assert (bare.args, bare.command and bare.command.command) == (None, ("ls", "-l"))


def test_numbers_may_be_text_and_text_keeps_its_spelling(tmp_path: Path) -> None:
    text = """
    cmd: sft
    requirements: {gpu: "2", mem_gb: "64", gpu_type: 0100}
    args:
      model_type: 1.10
      model: org/m
      dataset: 0123
      learning_rate: "1e-4"
      train_dataset_sample: 1e4
      lora_alpha: 16
      use_dora: "True"
      save_strategy: no
      gradient_checkpointing: on
    experiment: [{name: 007}]
    """
    experiment = load_one(tmp_path, text)
    args = experiment.args
    assert args is not None
    assert (experiment.name, args.model_type, args.dataset) == ("007", "1.10", ("0123",))
    assert (args.learning_rate, args.train_dataset_sample, args.lora_alpha) == (1e-4, 10000, 16.0)
    assert (args.use_dora, args.save_strategy, args.gradient_checkpointing) == (True, "no", True)
    assert (experiment.requirements.gpu, experiment.requirements.mem_gb, experiment.requirements.gpu_type) == (
        2,
        64.0,
        "0100",
    )


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("1:30:00", 90),
        ("'1:30:00'", 90),
        ("1:30", 2),
        ("0:59", 1),
        ("2-0", 2880),
        ("1-2:30", 1590),
        ("1-2:30:01", 1591),
        ("8h", 480),
        ("90m", 90),
        ("1d", 1440),
        ("1h30m", 90),
        ("1d 12h", 2160),
        ("12:00:00", 720),
        ("010", 10),
    ],
)
def test_time_limits(tmp_path: Path, text: str, minutes: int) -> None:
    assert (
        load_one(tmp_path, HEAD + f"requirements: {{time: {text}}}\nexperiment: [{{name: a}}]").requirements.time_min
        == minutes
    )


def test_a_text_that_is_not_a_time_limit_is_refused() -> None:
    found = [
        parse_minutes(text)
        for text in ("", "h", "1.5h", "1:2:3:4", "-1", "1-", "8 hours", "UNLIMITED", "9" * 30, "\u0663h")
    ]
    assert found == [None] * 10


@pytest.mark.parametrize("key", ["partition", "gpu_type", "exclude"])
def test_words_for_the_batch_script_hold_no_line_breaks(key: str, tmp_path: Path) -> None:
    text = HEAD + f'requirements: {{{key}: "n1\\ntouch PWNED #"}}\nexperiment: [{{name: a}}]'
    assert f"requirements.{key}: got" in refusal(tmp_path, text)


def test_eval_requirements_default_to_one_gpu_on_the_same_partition(tmp_path: Path) -> None:
    text = (
        HEAD
        + "requirements: {gpu: 4, ddp: 4, nodes: 2, partition: big, gpu_type: a100, time: 9h}\nexperiment: [{name: a}]"
    )
    evals = load_one(tmp_path, text).eval_requirements
    assert (evals.gpu, evals.ddp, evals.nodes, evals.partition, evals.gpu_type, evals.time_min) == (
        1,
        1,
        1,
        "big",
        "a100",
        None,
    )
    on_cpu = load_one(tmp_path, HEAD + "device: cpu\nrequirements: {ddp: 2}\nexperiment: [{name: a}]")
    assert (on_cpu.requirements.gpu, on_cpu.requirements.ddp, on_cpu.eval_requirements.gpu) == (0, 2, 0)


def test_eval_arguments_by_dataset(tmp_path: Path) -> None:
    text = """
    cmd: sft
    args: {model: org/m, dataset: d}
    eval_dataset: gsm8k, arc
    eval_args:
      limit: 10
      gen_kwargs: {temperature: 1e-1}
      per_dataset: {gsm8k: {num_fewshot: 4, limit: 5}, arc: {limit: null}}
    experiment: [{name: a, eval_args: {per_dataset: {gsm8k: {batch_size: 2}}}}]
    """
    experiment = load_one(tmp_path, text, "eval_args.per_dataset.gsm8k.num_fewshot=8")
    gsm8k, arc = experiment.eval_args["gsm8k"], experiment.eval_args["arc"]
    assert (gsm8k.limit, gsm8k.num_fewshot, gsm8k.batch_size, gsm8k.gen_kwargs) == (5, 8, 2, {"temperature": 0.1})
    assert (arc.limit, arc.num_fewshot) == (None, None)


def test_commands_and_their_models(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    text = """
    cmd: command
    eval_dataset: gsm8k
    experiment:
      - {name: a, args: {command: "python train.py --name 'a b'", cwd: src, output_model: out}}
      - {name: b, args: {command: [python, -c, 1], model: org/m}, eval_args: {command: ./eval.sh}, requirements: {gpu:
      0}}
    """
    a, b = load(tmp_path, text).experiments
    assert a.command is not None
    assert (a.command.command, a.command.cwd, a.args) == (
        ("python", "train.py", "--name", "a b"),
        str(tmp_path / "src"),
        None,
    )
    assert b.command is not None
    assert b.args is not None
    assert (b.command.command, b.args.model_name, b.eval_args["gsm8k"].command) == (
        ("python", "-c", "1"),
        "m",
        ("./eval.sh",),
    )


def test_aliases_are_the_arguments_they_stand_for(tmp_path: Path) -> None:
    text = """
    cmd: sft
    args:
      model: Qwen/Qwen2.5-7B-Instruct
      dataset: d
      tuner_bankend: swift
      gradient_checkpinting: true
      per_device_train_batch_size: 4
      tuner_type: full
      attn_impl: flash_attn
      torch_dtype: bfloat16
      quantization_bit: 0
      packing: false
      galore_rank: 128
      custom_train_dataset_path: []
    experiment:
      - {name: a, args: {train_type: lora, r: 4, lora_dropout: 0.1, target_modules: ALL, torch_dtype: torch.float16}}
    """
    args = load_one(tmp_path, text).args
    assert args is not None
    assert (args.model_id_or_path, args.tuner_backend, args.gradient_checkpointing) == (
        "Qwen/Qwen2.5-7B-Instruct",
        "swift",
        True,
    )
    assert (args.batch_size, args.sft_type, args.attn_impl, args.dtype) == (4, "lora", "flash_attention_2", "fp16")
    assert (args.lora_rank, args.lora_dropout_p, args.lora_target_modules) == (4, 0.1, ("ALL",))


def test_tuners_are_taken_by_the_names_of_ms_swifts_tables(tmp_path: Path) -> None:
    text = """
    cmd: sft
    args: {model_type: qwen2.5-7b-instruct, dataset: d, sft_type: full, galore_rank: "64", galore_quantization: false}
    experiment:
      - {name: galore, args: {use_galore: "true", galore_optim_per_parameter: true, galore_target_modules: "a b"}}
      - {name: lisa, args: {lisa_activated_layers: "2", lisa_step_interval: 10}}
      - {name: llamapro, args: {sft_type: llamapro, llamapro_num_groups: null}}
      - {name: adalora, args: {tuner_type: adalora, adalora_deltaT: "3", adalora_beta1: 0.9}}
      - {name: dora, args: {sft_type: dora}}
      - {name: lora+, args: {sft_type: lora+, lora_lr_ratio: 8}}
    """
    found = {experiment.name: experiment.args for experiment in load(tmp_path, text).experiments}
    args = {name: value for name, value in found.items() if value is not None}
    assert {name: value.tuner for name, value in args.items()} == {
        **{name: name for name in ("galore", "lisa", "llamapro", "adalora")},
        **dict.fromkeys(("dora", "lora+"), "lora"),
    }
    assert (args["galore"].sft_type, args["galore"].galore_rank, args["galore"].galore_per_parameter) == (
        "full",
        64,
        True,
    )
    assert args["galore"].galore_target_modules == ("a", "b")
    assert (args["adalora"].adalora_deltaT, args["adalora"].adalora_beta1) == (3, 0.9)
    assert (args["dora"].use_dora, args["lora+"].lora_lr_ratio) == (True, 8)


def test_what_tuners_cannot_do_is_refused_with_the_reason(tmp_path: Path) -> None:
    text = """
    cmd: sft
    args: {model_type: qwen2.5-7b-instruct, dataset: d}
    experiment:
      - {name: a, args: {sft_type: full, galore_quantization: true}}
      - {name: b, args: {sft_type: lora, use_galore: "true"}}
      - {name: c, args: {sft_type: adalora, adalora_beta1: 1.5}}
    """
    refused = refusal(tmp_path, text)
    assert "galore_quantization is for galore" in refused
    assert "use_galore is for sft_type full, not lora" in refused
    assert "expected: number, more than 0 and less than 1" in refused


def test_a_catalog_name_under_model_replaces_an_inherited_path(tmp_path: Path) -> None:
    text = "cmd: sft\nargs: {model_id_or_path: a/b, dataset: d}\nexperiment: [{name: a, args: {model: qwen2.5-7b-instruct}}, {name: b, args: {model: gpt2}}]"
    a, b = load(tmp_path, text).experiments
    assert a.args is not None
    assert b.args is not None
    assert (a.args.model_type, a.args.model_id_or_path) == ("qwen2.5-7b-instruct", None)
    assert (b.args.model_type, b.args.model_id_or_path) == (None, "gpt2")


def test_paths_are_relative_to_the_suite_and_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("suites/base", "suites/tasks", "home", "suites/ms-agent", "cwd"):
        (tmp_path / folder).mkdir(parents=True)
    write_model(tmp_path / "suites/base")
    row = '{"query": "q", "response": "r"}\n'
    for file in ("suites/train set.jsonl", "home/val.jsonl", "cwd/other.jsonl"):
        (tmp_path / file).write_text(row)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "cwd")
    text = """
    cmd: sft
    eval_dataset: gsm8k
    eval_args: {include_path: ./tasks}
    args: {model: base, dataset: train set.jsonl, val_dataset: [~/val.jsonl, ms-agent, org/data]}
    experiment: [{name: a}]
    """
    experiment = load_one(tmp_path / "suites", text)
    assert experiment.args is not None
    assert experiment.args.model_id_or_path == f"{tmp_path}/suites/base"
    assert experiment.args.dataset == (f"{tmp_path}/suites/train set.jsonl",)
    assert experiment.args.val_dataset == (f"{tmp_path}/home/val.jsonl", "ms-agent", "org/data")
    assert experiment.eval_args["gsm8k"].include_path == (f"{tmp_path}/suites/tasks",)
    overridden = load_one(tmp_path / "suites", text, "args.dataset=other.jsonl")
    assert overridden.args is not None
    assert overridden.args.dataset == (f"{tmp_path}/cwd/other.jsonl",)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
def test_datasets_of_every_shape_are_planned(tmp_path: Path, shape: Shape, suffix: str) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    row = {column: json.dumps(turns) if part == "turns" else "x" for column, part in shape.needed.items()}
    contents = {
        "json": json.dumps([row, row]),
        "jsonl": "\n" + json.dumps(row),
        "csv": ",".join(row)
        + "\n"
        + ",".join(f'"{value}"' for value in (text.replace('"', '""') for text in row.values())),
    }
    (tmp_path / f"d.{suffix}").write_text(contents[suffix])
    load_one(tmp_path, f"cmd: sft\nargs: {{model: org/m, dataset: d.{suffix}}}\nexperiment: [{{name: a}}]")


def test_a_baseline_may_ask_for_eval_loss_alone(tmp_path: Path) -> None:
    text = "cmd: eval\nargs: {model: org/m, val_dataset: d}\neval_args: {eval_loss: true}\nexperiment: [{name: a}]"
    experiment = load_one(tmp_path, text)
    assert experiment.eval_dataset == ("eval_loss",)
    assert experiment.eval_args["eval_loss"].eval_loss


def test_info_and_attempts_are_carried_along(tmp_path: Path) -> None:
    text = HEAD + "info: {who: me, tags: [1, yes]}\nmax_attempts: 3\nexperiment: [{name: a, info: {why: 0123}}]"
    experiment = load_one(tmp_path, text)
    assert experiment.info == {"who": "me", "tags": [1, True], "why": "0123"}
    assert (experiment.max_attempts, experiment.line) == (3, 5)


def test_folders_are_searched_for_suites_only(tmp_path: Path) -> None:
    suite = HEAD + "experiment: [{name: a}]\n"
    files = {
        "b.yaml": suite,
        "a/c.yml": suite,
        "a/d.json": json.dumps(
            {"cmd": "eval", "eval_dataset": "arc", "args": {"model": "org/m"}, "experiment": [{"name": "a"}]}
        ),
        "clusters/e.yaml": suite,
        ".git/f.yaml": suite,
        ".g.yaml": suite,
        "model/config.json": '{"experiment": 1}',
        "model/tokenizer.json": '{"experiment": []}',
        "tasks/h.yaml": "task: pig\ndoc: !function x.y\nmetadata: {experiment: 1}\n",
        "rows.json": '[{"experiment": 1}]',
        "notes.txt": suite,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert [found.name for found in load_suites([tmp_path])] == ["b", "c", "d"]
    assert [found.name for found in load_suites([tmp_path / "a", tmp_path, tmp_path / "b.yaml"])] == ["c", "d", "b"]
    assert [found.name for found in load_suites([tmp_path / "clusters", tmp_path / "notes.txt"])] == ["e", "notes"]
    (tmp_path / "broken.yaml").write_text("experiment: [\n")
    assert messages_of([tmp_path])[0].startswith("not valid YAML")


def test_nothing_heavy_is_imported() -> None:
    script = "import sys, hpcbench.config, hpcbench.config.schema; print(sorted({'torch', 'transformers', 'datasets', 'submitit'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "[]\n"
