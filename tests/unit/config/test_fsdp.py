"""`fsdp`: what ranks can shard is planned, what FSDP would leave out or replace is refused with a way on."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.schemas.arguments import SftArgs
from tests.support.suite_writer import HEAD, load_one, refusal


def suite(args: str, *, gpu: int = 2, ddp: int = 2, nodes: int = 1) -> str:
    """Return a suite of one experiment with these arguments."""
    requirements = f"{{gpu: {gpu}, ddp: {ddp}, nodes: {nodes}}}"
    return HEAD + f"requirements: {requirements}\nexperiment: [{{name: a, args: {{{args}}}}}]\n"


def args_of(folder: Path, text: str) -> SftArgs:
    args = load_one(folder, text).args
    assert args is not None
    return args


@pytest.mark.parametrize(
    "args",
    [
        "fsdp: full_shard",
        "fsdp: full_shard auto_wrap offload, sft_type: full",
        "fsdp: [shard_grad_op], gradient_checkpointing: true",
        "fsdp: full_shard, fsdp_config: {fsdp_version: 2, fsdp_min_num_params: 1000000}",
        "fsdp: full_shard, fsdp_config: {transformer_layer_cls_to_wrap: [Qwen2DecoderLayer]}",
        "fsdp: full_shard, packing: true, attn_impl: sdpa, lora_dtype: fp32",
    ],
)
def test_what_can_be_sharded_is_planned(args: str, tmp_path: Path) -> None:
    assert args_of(tmp_path, suite(args)).fsdp


@pytest.mark.parametrize("word", ["fsdp2", "true"])
def test_the_preset_of_ms_swift_and_the_switch_of_transformers_shard_layer_by_layer(word: str, tmp_path: Path) -> None:
    assert args_of(tmp_path, suite(f"fsdp: {word}")).fsdp == ("full_shard", "auto_wrap")


@pytest.mark.parametrize("word", ["false", "''", "[]"])
def test_fsdp_that_is_switched_off_shards_nothing(word: str, tmp_path: Path) -> None:
    assert args_of(tmp_path, suite(f"fsdp: {word}")).fsdp == ()


@pytest.mark.parametrize(
    ("args", "strategy", "reshards", "policy"),
    [
        ({"fsdp": ["full_shard"]}, "full_shard", True, "TRANSFORMER_BASED_WRAP"),
        ({"fsdp": ["offload", "shard_grad_op"]}, "shard_grad_op", False, "TRANSFORMER_BASED_WRAP"),
        ({"fsdp": ["hybrid_shard_zero2"]}, "hybrid_shard_zero2", False, "TRANSFORMER_BASED_WRAP"),
        (
            {"fsdp": ["full_shard"], "fsdp_config": {"fsdp_reshard_after_forward": False, "min_num_params": 9}},
            "full_shard",
            False,
            "SIZE_BASED_WRAP",
        ),
    ],
)
def test_words_and_settings_are_read_together(
    args: dict[str, object], strategy: str, reshards: bool, policy: str
) -> None:
    settings = SftArgs.model_validate({"model_id_or_path": "m", **args}).fsdp_settings
    assert (settings.strategy, settings.reshard_after_forward, settings.auto_wrap_policy) == (
        strategy,
        reshards,
        policy,
    )


@pytest.mark.parametrize(
    ("ddp", "nodes", "config", "replicas"), [(4, 2, "{}", 2), (8, 1, "{dp_replicate_size: 4}", 4), (8, 2, "{}", 2)]
)
def test_hybrid_shard_holds_the_model_once_per_node(
    ddp: int, nodes: int, config: str, replicas: int, tmp_path: Path
) -> None:
    text = suite(f"fsdp: hybrid_shard, fsdp_config: {config}", gpu=ddp, ddp=ddp, nodes=nodes)
    assert args_of(tmp_path, text).fsdp_settings.count_replicas(num_nodes=nodes) == replicas


WAYS = "one of full_shard, shard_grad_op, hybrid_shard, hybrid_shard_zero2"
WITH_FSDP = "\n  hint: remove one of them"


@pytest.mark.parametrize(
    ("args", "key", "message"),
    [
        (
            "fsdp: full_shards",
            "fsdp",
            (
                "unknown word 'full_shards' of `fsdp`\n  expected: full_shard, shard_grad_op, hybrid_shard, "
                "hybrid_shard_zero2, auto_wrap, offload\n  hint: did you mean 'full_shard'?"
            ),
        ),
        ("fsdp: auto_wrap", "fsdp", f"`fsdp: auto_wrap` names none of the ways to shard\n  expected: {WAYS}"),
        (
            "fsdp: full_shard hybrid_shard",
            "fsdp",
            f"`fsdp: full_shard hybrid_shard` names 2 of the ways to shard\n  expected: {WAYS}",
        ),
        (
            "fsdp_config: {min_num_params: 1}",
            "fsdp_config",
            "`fsdp_config` has no effect\n  expected: fsdp: full_shard",
        ),
        ("fsdp: full_shard, fsdp_config: {version: 1}", "fsdp_config", "`fsdp_config.version`: got 1\n  expected: 2"),
        (
            "fsdp: full_shard, fsdp_config: {state_dict_type: SHARDED_STATE_DICT}",
            "fsdp_config",
            (
                "`fsdp_config.state_dict_type` changes nothing: checkpoints hold whole weights, and the optimizer's state "
                "as each rank has it\n  hint: remove it"
            ),
        ),
        (
            "fsdp: full_shard, fsdp_config: {reshard: true}",
            "fsdp_config",
            "unknown setting 'reshard' of `fsdp_config`\n  expected: activation_checkpointing, reshard_after_forward, ",
        ),
        (
            "fsdp: full_shard, fsdp_config: {auto_wrap_policy: SIZE_BASED_WRAP}",
            "fsdp_config",
            "`fsdp_config.auto_wrap_policy: SIZE_BASED_WRAP` needs `min_num_params`\n  hint: set it, too",
        ),
        (
            "fsdp: full_shard, gradient_checkpointing: true, fsdp_config: {activation_checkpointing: false}",
            "fsdp_config",
            (
                "`gradient_checkpointing: true` and `fsdp_config.activation_checkpointing: false` are the same switch\n"
                "  hint: keep one of them"
            ),
        ),
        (
            "fsdp: hybrid_shard",
            "fsdp",
            (
                "`fsdp: hybrid_shard` holds the model once per node, and there is one node\n"
                "  expected: requirements.nodes: 2 or more\n"
                "  hint: set fsdp: full_shard, or fsdp_config: {dp_replicate_size: 2}"
            ),
        ),
        (
            "fsdp: full_shard, fsdp_config: {dp_replicate_size: 2}",
            "fsdp_config",
            "`fsdp_config.dp_replicate_size` has no effect with full_shard\n  expected: fsdp: hybrid_shard",
        ),
        (
            "fsdp: full_shard, sft_type: adalora",
            "fsdp",
            (
                "`fsdp` does not train `adalora`, which has an optimizer or weights of its own\n"
                "  expected: sft_type: full or lora\n  hint: or remove fsdp"
            ),
        ),
        (
            "fsdp: full_shard, quantization_bit: 4",
            "quantization_bit",
            "`quantization_bit` with `fsdp`, which shards weights of 16 or 32 bits" + WITH_FSDP,
        ),
        (
            "fsdp: full_shard, lora_lr_ratio: 16",
            "lora_lr_ratio",
            "`lora_lr_ratio` makes an optimizer of its own, which `fsdp` does not shard" + WITH_FSDP,
        ),
        (
            "fsdp: full_shard, optim: adafactor",
            "optim",
            (
                "`optim: adafactor` with `fsdp`, which gives an optimizer shards of weights\n"
                "  expected: adamw_torch, adamw_torch_fused, sgd, adagrad, rmsprop"
            ),
        ),
        (
            "fsdp: full_shard, ddp_broadcast_buffers: false",
            "ddp_broadcast_buffers",
            "`ddp_broadcast_buffers` is for DDP and has no effect with `fsdp`\n  hint: remove it",
        ),
        ("fsdp: full_shard, dtype: fp16", "dtype", "`fsdp` with fp16, whose gradients it does not scale\n  expected: "),
    ],
)
def test_what_would_be_left_out_or_replaced_is_refused(args: str, key: str, message: str, tmp_path: Path) -> None:
    assert f"demo.yaml:4: experiment[a].args.{key}: {message}" in refusal(tmp_path, suite(args))


def test_one_rank_has_nothing_to_shard(tmp_path: Path) -> None:
    assert refusal(tmp_path, suite("fsdp: full_shard", gpu=1, ddp=1)) == (
        "demo.yaml:4: experiment[a].args.fsdp: `fsdp: full_shard` shards over ranks, and ddp is 1\n"
        "  expected: requirements: {ddp: 2} or more, with as many GPUs"
    )


@pytest.mark.parametrize("gpu", [2, 4])
def test_each_sharded_rank_has_one_gpu(gpu: int, tmp_path: Path) -> None:
    text = suite("fsdp: full_shard", gpu=gpu, ddp=2)
    if gpu == 2:
        assert args_of(tmp_path, text).fsdp
    else:
        assert "each rank of it has one GPU\n  expected: requirements.gpu and ddp alike" in refusal(tmp_path, text)


def test_shards_on_the_cpu_lie_in_host_memory_anyway(tmp_path: Path) -> None:
    text = suite("fsdp: full_shard offload", gpu=0).replace("experiment", "device: cpu\nexperiment", 1)
    assert "`fsdp` with offload and `device: cpu`, where shards lie in host memory anyway\n  hint: remove offload" in (
        refusal(tmp_path, text)
    )
