"""Fields of peft's methods as arguments: where they go, and what is refused with file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcbench.config.loading import load_suites
from hpcbench.errors import ConfigError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.tuners import REFUSED_METHODS, list_peft_methods


def load(folder: Path, *experiments: dict[str, Any], **shared: Any) -> list[SftArgs]:
    """Return the arguments of the experiments of a suite."""
    (folder / "rows.jsonl").write_text('{"query": "a", "response": "b"}\n' * 4, encoding="utf-8")
    suite = {
        "cmd": "sft",
        "args": {"model_type": "qwen2.5-7b-instruct", "dataset": "rows.jsonl", **shared},
        "experiment": [{"name": f"e{number}", "args": args} for number, args in enumerate(experiments)],
    }
    path = folder / "demo.json"
    path.write_text(json.dumps(suite, indent=1), encoding="utf-8")
    found = [experiment.args for experiment in load_suites([path])[0].experiments]
    return [args for args in found if args is not None]


def refusal(folder: Path, *experiments: dict[str, Any], **shared: Any) -> str:
    """Return what is said of a suite, without its folder."""
    with pytest.raises(ConfigError) as caught:
        load(folder, *experiments, **shared)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"sft_type": "vera", "vera_rank": 64}, {"r": 64}),
        ({"sft_type": "vera", "r": "64", "vera_d_initial": "0.2"}, {"r": 64, "d_initial": 0.2}),
        ({"sft_type": "vera", "peft_config": {"r": 64}, "vera_dropout": 0.1}, {"r": 64, "vera_dropout": 0.1}),
        ({"sft_type": "boft", "boft_block_size": 8, "boft_n_butterfly_factor": 2},
         {"boft_block_size": 8, "boft_n_butterfly_factor": 2}),
        ({"sft_type": "fourierft"}, {"n_frequency": 2000, "scaling": 300.0}),
        ({"sft_type": "fourierft", "fourier_n_frequency": 1000, "fourier_scaling": 150.0},
         {"n_frequency": 1000, "scaling": 150.0}),
        ({"sft_type": "hra", "apply_GS": "true"}, {"apply_GS": True}),
        ({"sft_type": "lokr", "init_weights": "lycoris"}, {"init_weights": "lycoris"}),
        ({"sft_type": "peft", "peft_config": {"peft_type": "LOHA", "task_type": "CAUSAL_LM", "r": 4}}, {"r": 4}),
        ({"sft_type": "lora", "peft_config": {"rank_pattern": {"q_proj": 4}}}, {"rank_pattern": {"q_proj": 4}}),
        ({"sft_type": "prompt_tuning", "num_virtual_tokens": 20}, {"num_virtual_tokens": 20}),
    ],
)  # fmt: skip
def test_a_field_goes_into_the_methods_configuration(
    tmp_path: Path, written: dict[str, Any], expected: dict[str, Any]
) -> None:
    [args] = load(tmp_path, written)
    assert args.peft_config == expected
    assert SftArgs.model_validate(args.model_dump()) == args


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"sft_type": "vera", "target_modules": "all-linear"}, {"lora_target_modules": ("ALL",)}),
        ({"sft_type": "vera", "vera_target_modules": ["q_proj"]}, {"lora_target_modules": ("q_proj",)}),
        ({"sft_type": "boft", "boft_modules_to_save": ["lm_head"]}, {"lora_modules_to_save": ("lm_head",)}),
        ({"sft_type": "ia3", "ia3_modules_to_save": ["lm_head"]}, {"lora_modules_to_save": ("lm_head",)}),
        (
            {"sft_type": "peft", "peft_config": {"peft_type": "LORA", "r": 4, "target_modules": "all-linear"}},
            {"sft_type": "lora", "lora_rank": 4, "lora_alpha": 8.0, "lora_target_modules": ("ALL",)},
        ),
        (
            {"sft_type": "peft", "peft_config": {"peft_type": "lora", "lora_alpha": 16, "init_lora_weights": False}},
            {"sft_type": "lora", "lora_alpha": 16.0, "init_lora_weights": "false"},
        ),
        (
            {"sft_type": "peft", "peft_config": {"peft_type": "ADALORA", "target_r": 4}},
            {"sft_type": "adalora", "adalora_target_r": 4, "lora_alpha": 8.0},
        ),
        ({"sft_type": "lora", "target_regex": r".*\.q_proj"}, {"target_regex": r".*\.q_proj"}),
        ({"sft_type": "lora", "init_weights": "pissa_niter_4"}, {"init_lora_weights": "pissa_niter_4"}),
        ({"sft_type": "lora", "lora_dtype": "bfloat16"}, {"lora_dtype": "bf16"}),
        ({"sft_type": "lora", "lora_dtype": "AUTO"}, {"lora_dtype": None}),
        ({"sft_type": "full", "freeze_parameters": 0.5}, {"freeze_parameters": (), "freeze_parameters_ratio": 0.5}),
        ({"sft_type": "full", "freeze_parameters": ["model.embed_tokens"]}, {"freeze_parameters_ratio": 0.0}),
        (
            {"sft_type": "full", "freeze_parameters": 1, "additional_trainable_parameters": ["lm_head"]},
            {"freeze_parameters_ratio": 1.0, "trainable_parameters": ("lm_head",)},
        ),
    ],
)
def test_an_argument_of_swift_or_peft_means_one_of_hpcbench(
    tmp_path: Path, written: dict[str, Any], expected: dict[str, Any]
) -> None:
    [args] = load(tmp_path, written)
    assert {name: getattr(args, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"sft_type": "vera", "vera_rnk": 64}, "unknown argument 'vera_rnk'\n  hint: did you mean 'vera_rank'?"),
        (
            {"sft_type": "vera", "peft_config": {"d_inital": 0.1}},
            "peft_config.d_inital: vera has no field 'd_inital' in peft\n  hint: did you mean 'd_initial'?",
        ),
        ({"sft_type": "vera", "vera_rank": "many"}, "vera_rank: got 'many'\n  expected: integer, 1 or more"),
        ({"sft_type": "vera", "vera_rank": 0}, "vera_rank: got 0\n  expected: integer, 1 or more"),
        ({"sft_type": "oft", "oft_bias": "some"}, "oft_bias: got 'some'\n  expected: all, none, oft_only"),
        ({"sft_type": "boft", "vera_rank": 64}, "`vera_rank` has no effect\n  expected: sft_type: vera"),
        ({"sft_type": "vera", "vera_rank": 64, "r": 64}, "`r` and `vera_rank` are the same field of vera"),
        ({"sft_type": "peft"}, "`sft_type: peft` needs the method's name"),
        ({"sft_type": "peft", "peft_config": {"peft_type": "VERRA"}}, "hint: did you mean 'VERA'?"),
        ({"sft_type": "vera", "peft_config": {"peft_type": "BOFT"}}, "`peft_type: BOFT` contradicts `sft_type: vera`"),
        ({"sft_type": "vera", "peft_config": 3}, "got 3\n  expected: a mapping of fields to values"),
        ({"sft_type": "vblora", "save_only_topk_weights": True}, "`save_only_topk_weights` cannot be set"),
        (
            {"sft_type": "lora", "peft_config": {"eva_config": {"rho": 2.0}}},
            "`eva_config` of lora needs more than a value, and is not honoured",
        ),
        ({"sft_type": "lora", "init_lora_weights": "eva"}, "needs a pass over data before training"),
        ({"sft_type": "lora", "init_lora_weights": "pisa"}, "init_lora_weights pisa is unknown"),
        ({"sft_type": "lora", "lora_dtype": "fp16"}, "lora_dtype fp16 cannot be trained"),
        ({"sft_type": "lora", "target_regex": "*q"}, "target_regex is not a regular expression"),
        ({"sft_type": "prompt_tuning"}, "set prompt_tuning_num_virtual_tokens: 20"),
        ({"sft_type": "prompt_tuning", "num_virtual_tokens": 8, "packing": True}, "set packing: false"),
        ({"sft_type": "ln_tuning", "dtype": "fp16"}, "set dtype: bf16 or fp32, not fp16"),
        ({"sft_type": "vera", "quantization_bit": 4}, "quantization_bit freezes the base and cannot go with"),
        ({"sft_type": "lisa", "freeze_parameters_ratio": 0.5}, "`freeze_parameters_ratio` has no effect"),
        ({"sft_type": "reft", "reft_rank": 8}, "pyreft, which has reft, needs transformers 4.45.1"),
    ],
)
def test_what_a_method_does_not_have_is_refused(tmp_path: Path, written: dict[str, Any], expected: str) -> None:
    assert expected in refusal(tmp_path, written)


@pytest.mark.parametrize("name", sorted(REFUSED_METHODS))
def test_a_method_that_rows_cannot_train_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    assert REFUSED_METHODS[name] in " ".join(refusal(tmp_path, {"sft_type": name}).split())
    named = refusal(tmp_path, {"sft_type": "peft", "peft_config": {"peft_type": name.upper()}})
    assert REFUSED_METHODS[name] in " ".join(named.split())


def test_fields_that_all_experiments_share_go_to_the_method_that_has_them(tmp_path: Path) -> None:
    vera, boft, lora = load(
        tmp_path,
        {"sft_type": "vera"},
        {"sft_type": "boft"},
        {"sft_type": "lora"},
        vera_rank=64,
        boft_block_size=8,
        lora_rank=16,
    )
    assert (vera.peft_config, boft.peft_config, lora.peft_config) == ({"r": 64}, {"boft_block_size": 8}, {})
    text = refusal(tmp_path, {"sft_type": "boft"}, {"sft_type": "lora"}, vera_rank=64)
    assert "`vera_rank` has no effect in any experiment" in text


def test_fields_vary_in_a_matrix(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"query": "a", "response": "b"}\n' * 4, encoding="utf-8")
    args = {"model_type": "qwen2.5-7b-instruct", "dataset": "rows.jsonl"}
    matrix = {"sft_type": ["loha", "vera"], "r": [2, 4]}
    suite = {"cmd": "sft", "args": args, "experiment": [{"name": "a", "matrix": matrix}]}
    (tmp_path / "demo.json").write_text(json.dumps(suite), encoding="utf-8")
    found = [experiment.args for experiment in load_suites([tmp_path / "demo.json"])[0].experiments]
    assert [(args.sft_type, args.peft_config) for args in found if args is not None] == [
        ("loha", {"r": 2}),
        ("loha", {"r": 4}),
        ("vera", {"r": 2}),
        ("vera", {"r": 4}),
    ]


def test_every_method_is_planned_by_its_name(tmp_path: Path) -> None:
    needed = {"num_virtual_tokens": 4, "adapter_len": 4, "adapter_layers": 2, "token_indices": [1]}
    experiments = [
        {"sft_type": name, **{field: value for field, value in needed.items() if field in fields}}
        for name, fields in ((name, required(name)) for name in list_peft_methods())
    ]
    found = load(tmp_path, *experiments)
    assert [args.sft_type for args in found] == list(list_peft_methods())
    assert {args.tuner for args in found} == {"peft", "shadow"}


def required(name: str) -> set[str]:
    from hpcbench.schemas.tuners import REQUIRED_FIELDS

    return set(REQUIRED_FIELDS.get(name, {}))
