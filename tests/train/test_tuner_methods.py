"""Each fine-tuning method against a statement of it that shares no code with ours."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import TrainingArguments
from transformers.integrations.neftune import activate_neftune

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.measure.flops import used_weights
from hpcbench.worker.models import loading
from hpcbench.worker.tuners import load_tuner
from hpcbench.worker.tuners.llamapro import place_blocks
from tests.support.tiny_models import make_job, prepare, read_history, read_metrics, read_weights, train_here

pytestmark = pytest.mark.train

IDS = torch.arange(3 * 11).reshape(3, 11)


def logits(prepared: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = prepared.eval()(input_ids=IDS, use_cache=False).logits
    return found


def plain_logits(base_model: Path) -> torch.Tensor:
    return logits(loading.load_model(SftArgs(model_id_or_path=str(base_model), dtype="fp32"), "cpu"))


# At the start


@pytest.mark.parametrize("sft_type", ["adalora", "adapter", "ia3", "llamapro", "lisa", "galore", "dora"])
def test_a_method_starts_as_the_base(base_model: Path, sft_type: str) -> None:
    values = {"llamapro_num_new_blocks": 2} if sft_type == "llamapro" else {}
    prepared, _ = prepare(base_model, sft_type=sft_type, lora_target_modules="ALL", **values)
    tolerance = 1e-6 if sft_type == "dora" else 0.0
    assert (logits(prepared) - plain_logits(base_model)).abs().max() <= tolerance


@pytest.mark.parametrize("sft_type", ["adalora", "adapter", "ia3", "llamapro"])
def test_a_frozen_base_stays_as_it_is(tmp_path: Path, base_model: Path, chats: Path, sft_type: str) -> None:
    prepared, _ = prepare(base_model, sft_type=sft_type, lora_target_modules="ALL", llamapro_num_new_blocks=2)
    frozen = {name: p.detach().clone() for name, p in prepared.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in prepared.parameters() if p.requires_grad], lr=0.1)
    prepared(input_ids=IDS, labels=IDS).loss.backward()
    optimizer.step()
    assert frozen
    assert all((dict(prepared.named_parameters())[name] == value).all() for name, value in frozen.items())
    assert (logits(prepared) - plain_logits(base_model)).abs().max() > 0


# LoRA and its variants


@pytest.mark.parametrize(("use_rslora", "divisor"), [(False, 4.0), (True, 2.0)])
def test_lora_adds_alpha_over_rank_and_rslora_alpha_over_its_root(
    base_model: Path, use_rslora: bool, divisor: float
) -> None:
    prepared, _ = prepare(base_model, lora_rank=4, lora_alpha=6, use_rslora=use_rslora)
    projection = prepared.base_model.model.model.layers[0].self_attn.q_proj
    a_rn, b_mr = projection.lora_A.default.weight, projection.lora_B.default.weight
    torch.nn.init.normal_(b_mr)
    hidden = torch.randn(5, 32)
    expected = projection.base_layer(hidden) + 6 / divisor * (hidden @ a_rn.T @ b_mr.T)
    torch.testing.assert_close(projection.eval()(hidden), expected)


def test_biases_and_whole_modules_are_trained_saved_and_counted_beside_lora(
    tmp_path: Path, base_model: Path, chats: Path
) -> None:
    values: dict[str, Any] = {"lora_bias_trainable": "all", "lora_modules_to_save": "norm"}
    job = make_job(tmp_path, base_model, chats, **values, lora_target_modules="ALL", max_steps=4)
    metrics = read_metrics(train_here(job))
    # lora of rank 8 on 14 linear layers, biases of q, k and v in 2 layers, 5 norms, whose names all end so
    lora = 8 * 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48))
    assert metrics.parameters.trainable == lora + 2 * (32 + 16 + 16) + 5 * 32
    plain = sum(p.numel() for p in loading.load_model(SftArgs(model_id_or_path=str(base_model)), "cpu").parameters())
    assert metrics.parameters.total == plain + lora
    saved = read_weights(job.checkpoints / "last")
    assert sum("lora_" not in name for name in saved) == 2 * 3 + 5
    args = SftArgs(model_id_or_path=str(base_model), dtype="fp32", **values)
    loaded = dict(loading.load_checkpoint(args, job.checkpoints / "last", "cpu").named_parameters())
    base = dict(loading.load_model(args, "cpu").named_parameters())
    for name in ("model.norm.weight", "model.layers.1.self_attn.k_proj.bias"):
        found = [p for key, p in loaded.items() if name.rsplit(".", 1)[0] in key and "lora_" not in key]
        assert any((p.shape == base[name].shape) and (p != base[name]).any() for p in found), name


def test_a_module_to_save_that_is_not_there_is_refused(base_model: Path) -> None:
    with pytest.raises(WorkerError, match=r"no module is named embed_token$"):
        prepare(base_model, lora_modules_to_save="norm embed_token")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lora_target_modules": "q_proj c_attn"}, "lora_target_modules: no module is named c_attn"),
        ({"lora_target_modules": "DEFAULT c_attn"}, "lora_target_modules: no module is named c_attn"),
        ({"lora_target_modules": "ALL c_attn"}, "lora_target_modules: no module is named c_attn"),
        ({"sft_type": "adalora", "lora_target_modules": "q_proj c_attn"}, "lora_target_modules: no module is named c_"),
        ({"sft_type": "ia3", "ia3_target_modules": "k_proj fc2"}, "ia3_target_modules: no module is named fc2"),
    ],
)
def test_a_target_that_the_model_lacks_is_refused_even_beside_one_that_it_has(
    base_model: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(WorkerError, match=message):
        prepare(base_model, **values)


def targets_of(model: Any) -> set[str]:
    return {name.partition(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_words_for_several_modules_go_with_names_beside_them(base_model: Path) -> None:
    everything, _ = prepare(base_model, lora_target_modules="ALL")
    with_embedding, _ = prepare(base_model, lora_target_modules="ALL EMBEDDING")
    embedding = {"base_model.model.model.embed_tokens"}
    assert targets_of(with_embedding) == targets_of(everything) | embedding
    default, _ = prepare(base_model, lora_target_modules="DEFAULT down_proj EMBEDDING")
    assert {name.rpartition(".")[2] for name in targets_of(default)} == {
        *("q_proj", "k_proj", "v_proj", "down_proj", "embed_tokens")
    }


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
@pytest.mark.parametrize(
    "values",
    [
        {"lora_modules_to_save": "lm_head"},
        {"lora_modules_to_save": "embed_tokens"},
        {"lora_target_modules": "q_proj lm_head"},
        {"lora_target_modules": "q_proj EMBEDDING"},
    ],
)
def test_an_adapter_on_tied_embeddings_is_evaluated_as_it_was_trained_merged_too(
    tmp_path: Path, base_model: Path, values: dict[str, Any]
) -> None:
    from hpcbench.worker.evaluate.model import EvalModel

    model, args = prepare(base_model, **values)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path)
    ids = torch.arange(24)[None]
    expected = model.eval()(input_ids=ids).logits
    tokenizer = loading.load_tokenizer(args)
    for merge in (False, True):
        loaded = loading.load_checkpoint(args, tmp_path, "cpu", merge=merge)
        lm = EvalModel(
            loaded, tokenizer, prompts=None, batch_size=1, max_length=None, between_batches=lambda _done, _total: None
        )
        torch.testing.assert_close(lm.model(input_ids=ids).logits, expected, msg=f"merge {merge}")


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_a_tied_head_still_counts_where_its_embedding_is_saved(base_model: Path) -> None:
    plain = sum(p.numel() for p in loading.load_model(SftArgs(model_id_or_path=str(base_model)), "cpu").parameters())
    prepared, _ = prepare(base_model, lora_modules_to_save="embed_tokens", lora_target_modules="q_proj", lora_rank=1)
    embedding = prepared.get_output_embeddings().weight
    lora = 2 * (32 + 32)
    # The head stays what it was; beside it there is an embedding that is trained.
    assert sum(weight.numel() for weight in used_weights(prepared)) == plain + embedding.numel() + lora


def test_lora_is_drawn_as_asked_for(base_model: Path) -> None:
    def drawn(word: str) -> tuple[torch.Tensor, torch.Tensor]:
        prepared, _ = prepare(base_model, init_lora_weights=word, lora_rank=8)
        projection = prepared.base_model.model.model.layers[0].self_attn.q_proj
        return projection.lora_A.default.weight, projection.lora_B.default.weight

    # Uniform within 1 / sqrt(inputs), normal with deviation 1 / rank.
    assert drawn("true")[0].abs().max() <= 32**-0.5
    assert drawn("gaussian")[0].abs().max() > 32**-0.5
    assert float(drawn("gaussian")[0].detach().std()) == pytest.approx(1 / 8, rel=0.2)
    assert all((drawn(word)[1] == 0).all() for word in ("true", "gaussian"))
    assert (drawn("false")[1] != 0).any()


def test_dora_learns_the_length_of_each_row_apart_from_its_direction(base_model: Path) -> None:
    prepared, _ = prepare(base_model, lora_rank=4, lora_alpha=6, use_dora=True)
    projection = prepared.base_model.model.model.layers[0].self_attn.q_proj
    a_rn, b_mr = projection.lora_A.default.weight, projection.lora_B.default.weight
    magnitude_m = projection.lora_magnitude_vector.default.weight
    base_mn = projection.base_layer.weight
    torch.testing.assert_close(magnitude_m, base_mn.norm(dim=1))
    torch.nn.init.normal_(b_mr)
    torch.nn.init.uniform_(magnitude_m, 1, 2)
    direction_mn = base_mn + 6 / 4 * b_mr @ a_rn
    weight_mn = magnitude_m[:, None] * direction_mn / direction_mn.norm(dim=1, keepdim=True)
    hidden = torch.randn(5, 32)
    expected = hidden @ weight_mn.T + projection.base_layer.bias
    torch.testing.assert_close(projection.eval()(hidden), expected)


def test_loraplus_groups_have_their_rates_and_weight_decay(tmp_path: Path, base_model: Path) -> None:
    prepared, args = prepare(base_model, sft_type="lora+", weight_decay=0.03, learning_rate=1e-3)
    training_args = TrainingArguments(output_dir=str(tmp_path), learning_rate=1e-3, use_cpu=True)
    optimizer = load_tuner(args.tuner).create_optimizer(prepared, args, training_args)
    assert optimizer is not None
    names = {id(parameter): name for name, parameter in prepared.named_parameters()}
    rates = {
        names[id(p)]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    assert len(rates) == 2 * 3 * 2
    for name, found in rates.items():
        assert found == (pytest.approx(16e-3 if "lora_B" in name else 1e-3), 0.03), name


# AdaLoRA


def count_kept(folder: Path) -> int:
    return sum(int((tensor != 0).sum()) for name, tensor in read_weights(folder).items() if "lora_E" in name)


def test_adalora_prunes_to_its_mean_rank(tmp_path: Path, base_model: Path, chats: Path) -> None:
    values: dict[str, Any] = {"sft_type": "adalora", "adalora_init_r": 6, "adalora_target_r": 2, "learning_rate": 0.05}
    job = make_job(tmp_path, base_model, chats, **values, adalora_tfinal=3, num_train_epochs=3)
    metrics = read_metrics(train_here(job))
    weights = read_weights(job.checkpoints / "last")
    sizes = [tensor.shape for name, tensor in weights.items() if "lora_E" in name]
    assert sizes == [(6, 1)] * 14, "14 linear layers start with rank 6 each"
    assert count_kept(job.checkpoints / "last") == 14 * 2
    assert metrics.unknown["train_loss"] == "includes adalora's orthogonality term; eval_loss does not"


def test_adaloras_orthogonality_is_in_the_training_loss_once_and_not_in_eval_loss(
    tmp_path: Path, base_model: Path, chats: Path
) -> None:
    def first_losses(name: str, **values: Any) -> tuple[float, float]:
        common = {"sft_type": "adalora", "learning_rate": 1e-12, "eval_steps": 1, "max_steps": 2, "seed": 3}
        # fp32 rounding of the sums stays below the tolerance
        job = make_job(tmp_path / name, base_model, chats, **{**common, **values}, lora_dropout_p=0)
        history = read_history(train_here(job))
        return history[0]["loss"], history[1]["eval_loss"]

    without, plain_eval = first_losses("without", adalora_orth_reg_weight=0)
    once, eval_loss = first_losses("with", adalora_orth_reg_weight=0.5)
    # A and B are drawn with deviation 0.02, so that A A^T is nearly 0 and the norm of A A^T - I nearly the root of 12.
    assert once - without == pytest.approx(0.5 * math.sqrt(12), rel=0.02)
    assert eval_loss == pytest.approx(plain_eval, abs=1e-7)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"adalora_init_r": 8}, r"adalora_init_r \(8\) must be larger than adalora_target_r \(8\)"),
        ({"use_dora": True}, "use_dora: for sft_type lora, not adalora"),
        ({"sft_type": "lora", "dtype": "fp16", "lora_modules_to_save": "norm"}, "lora_modules_to_save trains weights"),
        ({"sft_type": "qlora", "lora_bias_trainable": "all"}, "quantised layers keep their biases frozen"),
        ({"sft_type": "lora", "use_galore": "true"}, "use_galore is for sft_type full, not lora"),
        ({"sft_type": "lora", "lisa_activated_layers": 2}, "lisa_activated_layers is for sft_type full, not lora"),
        ({"sft_type": "lisa", "use_galore": True}, "use_galore and lisa_activated_layers are two methods: choose one"),
        ({"sft_type": "galore", "optim": "adafactor"}, "use_galore has an AdamW of its own"),
        ({"sft_type": "galore", "use_galore": "false"}, "sft_type galore contradicts use_galore: false"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SftArgs(**{"model_type": "m", "sft_type": "adalora", **values})


def test_adalora_needs_steps_to_shrink_ranks_in(tmp_path: Path, base_model: Path, chats: Path) -> None:
    job = make_job(tmp_path, base_model, chats, sft_type="adalora", adalora_tinit=5, adalora_tfinal=4)
    with pytest.raises(WorkerError, match="adalora_tinit 5 and adalora_tfinal 4 leave 1 of 10 steps"):
        train_here(job)


# The adapter


def test_the_adapter_is_a_bottleneck_after_each_mlp(base_model: Path) -> None:
    prepared, _ = prepare(base_model, sft_type="adapter", adapter_length=5)
    mlp = prepared.model.layers[1].mlp
    down, up = mlp.adapter.down, mlp.adapter.up
    torch.nn.init.normal_(up.weight)
    hidden = torch.randn(2, 7, 32)
    plain = mlp.down_proj(mlp.act_fn(mlp.gate_proj(hidden)) * mlp.up_proj(hidden))
    inner = plain @ down.weight.T + down.bias
    # Gaussian error linear unit, arXiv:1606.08415
    gelu = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    torch.testing.assert_close(mlp(hidden), plain + gelu @ up.weight.T + up.bias)
    trainable = {name for name, p in prepared.named_parameters() if p.requires_grad}
    assert {name.split("mlp.adapter.")[1] for name in trainable} == {"down.weight", "down.bias", "up.weight", "up.bias"}


# IA3


def test_ia3_scales_keys_values_and_what_the_mlp_projects_down(base_model: Path) -> None:
    prepared, _ = prepare(base_model, sft_type="ia3")
    layer = prepared.base_model.model.model.layers[1]
    scaled = (layer.self_attn.k_proj, layer.self_attn.v_proj, layer.mlp.down_proj)
    for module in scaled:
        torch.nn.init.normal_(module.ia3_l.default)
    hidden, inner = torch.randn(2, 7, 32), torch.randn(2, 7, 48)
    for module in scaled[:2]:
        outputs = hidden @ module.base_layer.weight.T + module.base_layer.bias
        torch.testing.assert_close(module(hidden), outputs * module.ia3_l.default.flatten())
    down = layer.mlp.down_proj
    torch.testing.assert_close(down(inner), (inner * down.ia3_l.default.flatten()) @ down.base_layer.weight.T)
    trainable = {name.split(".layers.")[1][2:] for name, p in prepared.named_parameters() if p.requires_grad}
    names = ("self_attn.k_proj", "self_attn.v_proj", "mlp.down_proj")
    assert trainable == {f"{name}.ia3_l.default" for name in names}


# LLaMA Pro


@pytest.mark.parametrize(
    ("num_layers", "num_new", "num_groups", "new_after"),
    [(8, 4, None, [1, 3, 5, 7]), (8, 4, 2, [3, 3, 7, 7]), (6, 4, None, [0, 2, 3, 5]), (2, 2, 1, [1, 1])],
)
def test_llamapro_spreads_its_blocks(
    num_layers: int, num_new: int, num_groups: int | None, new_after: list[int]
) -> None:
    placed = place_blocks(num_layers, num_new, num_groups)
    assert [source for source, is_new in placed if is_new] == new_after
    assert [source for source, is_new in placed if not is_new] == list(range(num_layers))
    assert [source for source, _ in placed] == sorted(source for source, _ in placed)


def test_llamapro_refuses_groups_that_do_not_fit(base_model: Path) -> None:
    with pytest.raises(WorkerError, match="4 blocks in 4 groups do not fit into 2 layers"):
        prepare(base_model, sft_type="llamapro")
    with pytest.raises(WorkerError, match="3 blocks in 2 groups do not fit"):
        prepare(base_model, sft_type="llamapro", llamapro_num_new_blocks=3, llamapro_num_groups=2)


def test_llamapro_makes_a_deeper_model_that_generates_with_a_cache(base_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    prepared, _ = prepare(base_model, sft_type="llamapro", llamapro_num_new_blocks=2)
    config = prepared.config
    assert (config.num_hidden_layers, len(config.layer_types)) == (4, 4)
    assert [layer.self_attn.layer_idx for layer in prepared.model.layers] == [0, 1, 2, 3]
    trained = {name.split(".")[2] for name, p in prepared.named_parameters() if p.requires_grad}
    assert trained == {"1", "3"}
    for layer in (1, 3):
        torch.nn.init.normal_(prepared.model.layers[layer].mlp.down_proj.weight, std=0.1)
    prepared.save_pretrained(tmp_path)
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (logits(loaded) == logits(prepared)).all()
    options = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(IDS)}
    with_cache = loaded.generate(IDS, use_cache=True, **options)
    assert (with_cache == loaded.generate(IDS, use_cache=False, **options)).all()


# NEFTune


def test_neftune_noise_has_its_size_and_is_off_in_evaluation(base_model: Path) -> None:
    base = loading.load_model(SftArgs(model_id_or_path=str(base_model), dtype="fp32"), "cpu")
    plain = base.get_input_embeddings()(IDS)
    activate_neftune(base, 15.0)
    noise = base.train().get_input_embeddings()(IDS) - plain
    # uniform within alpha / sqrt(L d), arXiv:2310.05914
    bound = 15 / math.sqrt(11 * 32)
    assert 0.95 * bound < noise.abs().max() <= bound
    assert (base.eval().get_input_embeddings()(IDS) == plain).all()


def test_neftune_changes_training_and_leaves_no_noise_in_eval_loss(
    tmp_path: Path, base_model: Path, chats: Path
) -> None:
    def history(name: str, alpha: float | None) -> list[Any]:
        # so small a rate that all weights stay as they are
        values: dict[str, Any] = {"learning_rate": 1e-12, "max_steps": 2, "eval_steps": 1, "neftune_noise_alpha": alpha}
        return read_history(train_here(make_job(tmp_path / name, base_model, chats, sft_type="full", **values)))

    noisy, plain = history("noisy", 15), history("plain", None)
    assert noisy[0]["loss"] != pytest.approx(plain[0]["loss"], abs=1e-3)
    assert noisy[1]["eval_loss"] == pytest.approx(plain[1]["eval_loss"], abs=1e-7)


# Defaults


@pytest.mark.parametrize(
    ("sft_type", "rate"),
    [
        *dict.fromkeys(("lora", "adalora", "adapter", "ia3", "llamapro", "dora", "rslora", "lora+"), 1e-4).items(),
        *dict.fromkeys(("full", "galore", "lisa"), 2e-5).items(),
    ],
)
def test_the_default_learning_rate_follows_the_method(sft_type: str, rate: float) -> None:
    assert SftArgs(model_type="m", sft_type=sft_type).effective_learning_rate == rate


def test_the_defaults_are_ms_swifts() -> None:
    args = SftArgs(model_type="m").model_dump()
    expected = {
        "adalora_target_r": 8,
        "adalora_init_r": 12,
        "adalora_tinit": 0,
        "adalora_tfinal": 0,
        "adalora_deltaT": 1,
        "adalora_beta1": 0.85,
        "adalora_beta2": 0.85,
        "adalora_orth_reg_weight": 0.5,
        "adapter_act": "gelu",
        "adapter_length": 128,
        "use_galore": False,
        "galore_rank": 128,
        "galore_target_modules": (),
        "galore_update_proj_gap": 50,
        "galore_scale": 1.0,
        "galore_proj_type": "std",
        "galore_per_parameter": False,
        "galore_with_embedding": False,
        "galore_quantization": False,
        "galore_proj_quant": False,
        "galore_proj_bits": 4,
        "galore_proj_group_size": 256,
        "galore_cos_threshold": 0.4,
        "galore_gamma_proj": 2,
        "galore_queue_size": 5,
        "lisa_activated_layers": 0,
        "lisa_step_interval": 20,
        "llamapro_num_new_blocks": 4,
        "llamapro_num_groups": None,
        "neftune_noise_alpha": None,
    }
    assert {key: args[key] for key in expected} == expected


@pytest.mark.parametrize("value", [True, "true", "True"])
def test_switches_may_be_json_or_text(value: Any) -> None:
    args = SftArgs(model_type="m", sft_type="full", use_galore=value, galore_with_embedding=value)
    assert (args.tuner, args.galore_with_embedding) == ("galore", True)
