"""Full fine-tuning, and LISA and GaLore that do it with less memory, against statements of them that share no code."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.metrics import TrainMetrics
from hpcbench.worker.models import loading
from hpcbench.worker.tuners import load_tuner
from hpcbench.worker.tuners.galore import GaLoreAdamW
from hpcbench.worker.tuners.lisa import LisaCallback, draw_layers
from tests.support.tiny_models import (
    make_job,
    make_llama_folder,
    make_model_folder,
    prepare,
    read_history,
    read_metrics,
    read_weights,
    train_here,
)

pytestmark = pytest.mark.train


# Full


def test_full_is_adamw_on_the_mean_loss_of_the_answers_tokens(tmp_path: Path, chats: Path) -> None:
    """Six steps over all 24 chats at once, in micro-batches of 6; here one chat after the other, nothing padded."""
    base = make_model_folder(tmp_path / "base", dropout=0.0)
    values: dict[str, Any] = {"batch_size": 6, "gradient_accumulation_steps": 4, "max_steps": 6, "weight_decay": 0.1}
    job = make_job(tmp_path / "job", base, chats, sft_type="full", dataset_test_ratio=0, **values)
    history = [line for line in read_history(train_here(job)) if "loss" in line]

    tokenizer, written_out = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    rows = [json.loads(line)["messages"] for line in chats.read_text().splitlines()]
    prompts = [f"<|im_start|>user\n{user['content']}<|im_end|>\n<|im_start|>assistant\n" for user, _ in rows]
    pairs = [
        (tokenizer(prompt)["input_ids"], tokenizer(f"{answer['content']}<|im_end|>")["input_ids"])
        for prompt, (_, answer) in zip(prompts, rows, strict=True)
    ]
    num_tokens = sum(len(answer) for _, answer in pairs)
    decays = [p for p in written_out.parameters() if p.ndim == 2]
    others = [p for p in written_out.parameters() if p.ndim == 1]
    groups = [{"params": decays, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
    for step, line in enumerate(history):
        # one step of warm-up, which is a twentieth of six rounded up, then half a cosine
        rate = 5e-3 * (0.5 * (1 + math.cos(math.pi * (step - 1) / 5)) if step else 0.0)
        optimizer.zero_grad()
        total = 0.0
        for prompt, answer in pairs:
            scores = written_out(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
            loss = torch.nn.functional.cross_entropy(scores, torch.tensor(answer), reduction="sum") / num_tokens
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(written_out.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        assert (line["loss"], line["grad_norm"]) == (
            pytest.approx(total, abs=1e-5),
            pytest.approx(float(norm), rel=1e-4),
        )
        assert line["learning_rate"] == pytest.approx(rate)
    expected, found = dict(written_out.named_parameters()), read_weights(job.checkpoints / "last")
    assert found.keys() == expected.keys() - {"lm_head.weight"}
    for name, weight in found.items():
        torch.testing.assert_close(weight, expected[name].detach(), atol=1e-4, rtol=1e-4)


# LISA


def test_lisas_draws_follow_from_seed_and_step() -> None:
    args = SftArgs(model_type="m", sft_type="lisa", lisa_activated_layers=3, lisa_step_interval=5)
    draws = [draw_layers(12, args, step) for step in range(500)]
    assert all(len(draw) == 3 for draw in draws)
    assert all(draws[step] == draws[step - step % 5] for step in range(500))
    assert len(set(draws)) > 50
    counts = [sum(layer in draw for draw in draws[::5]) for layer in range(12)]
    assert min(counts) > 10, "every layer has its turn"
    other = args.model_copy(update={"seed": 43})
    assert [draw_layers(12, other, step) for step in range(500)] != draws


def test_lisa_frees_the_optimizer_state_of_frozen_layers(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[int], set[int], set[int]]] = []
    start = loading.load_model(SftArgs(model_id_or_path=str(base_model), dtype="fp32"), "cpu").model.layers
    before = [layer.mlp.up_proj.weight.detach().clone() for layer in start]

    def watch(_self: Any, _args: Any, _state: Any, _control: Any, **found: Any) -> None:
        layers, state = found["model"].model.layers, found["optimizer"].state
        with_state = {i for i, layer in enumerate(layers) if any(p in state for p in layer.parameters())}
        thawed = {i for i, layer in enumerate(layers) if all(p.requires_grad for p in layer.parameters())}
        changed = {i for i, layer in enumerate(layers) if (layer.mlp.up_proj.weight != before[i]).any()}
        before[:] = [layer.mlp.up_proj.weight.detach().clone() for layer in layers]
        assert found["model"].model.embed_tokens.weight in state
        seen.append((with_state, thawed, changed))

    monkeypatch.setattr(LisaCallback, "on_step_end", watch)
    values: dict[str, Any] = {"sft_type": "lisa", "lisa_activated_layers": 1, "lisa_step_interval": 2}
    job = make_job(tmp_path, base_model, chats, **values)
    train_here(job)
    args = SftArgs(model_type="m", **values)
    expected = [set(draw_layers(2, args, step)) for step in range(10)]
    assert {0} in expected
    assert {1} in expected
    # one-based steps: the first draw counts for steps 1 and 2; in the first step the warm-up's rate may be 0
    assert [thawed for _, thawed, _ in seen] == expected
    assert [with_state for with_state, _, _ in seen] == expected
    assert all(changed <= draw for (_, _, changed), draw in zip(seen, expected, strict=True))
    assert [changed for _, _, changed in seen][1:-1] == expected[1:-1]


def test_lisas_figures_count_the_trained_layers_alone(tmp_path: Path, chats: Path) -> None:
    base = make_llama_folder(tmp_path / "base", num_layers=4)

    def measure(name: str, **values: Any) -> TrainMetrics:
        return read_metrics(train_here(make_job(tmp_path / name, base, chats, max_steps=1, **values)))

    full, lisa = measure("full", sft_type="full"), measure("lisa", sft_type="lisa", lisa_activated_layers=1)
    assert full.flops_per_token is not None
    assert lisa.flops_per_token is not None
    layer = 4 * 32 * 32 + 3 * 32 * 48 + 2 * 32
    assert full.flops_per_token - lisa.flops_per_token == 2 * 3 * layer
    assert full.parameters.trained_at_once is None
    assert lisa.parameters.trainable == full.parameters.trainable
    assert lisa.parameters.trained_at_once == full.parameters.trainable - 3 * layer


# GaLore


def write_out_galore(weight: torch.Tensor, gradients: list[torch.Tensor], *, rank: int, gap: int) -> torch.Tensor:
    """Return the weight after GaLore's Algorithm 2 (arXiv:2403.03507) with rate 0.1, scale 0.25 and decay 0.02."""
    weight = weight.clone()
    wide = weight.shape[0] < weight.shape[1]
    basis = first = second = torch.zeros(())
    for t, gradient in enumerate(gradients):
        if t % gap == 0:
            u, _, v = torch.linalg.svd(gradient, full_matrices=False)
            basis = u[:, :rank] if wide else v[:rank].T
        low = basis.T @ gradient if wide else gradient @ basis
        first = 0.9 * first + 0.1 * low
        second = 0.999 * second + 0.001 * low**2
        correction = math.sqrt(1 - 0.999 ** (t + 1)) / (1 - 0.9 ** (t + 1))
        normed = correction * first / (second.sqrt() + 1e-8)
        weight = weight - 0.1 * 0.25 * (basis @ normed if wide else normed @ basis.T)
        weight = weight - 0.1 * 0.02 * weight
    return weight


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (7, 7)])
def test_galores_step_is_adam_in_the_svds_subspace(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(shape))
    gradients = [torch.randn(shape) for _ in range(5)]
    expected = write_out_galore(weight.detach(), gradients, rank=3, gap=2)
    group = {"params": [weight], "rank": 3, "update_proj_gap": 2, "scale": 0.25, "weight_decay": 0.02}
    optimizer = GaLoreAdamW([group], lr=0.1)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected, atol=1e-6, rtol=1e-5)
    state = optimizer.state[weight]
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert state["exp_avg"].shape == ((3, 10) if shape == (6, 10) else (shape[0], 3))


@pytest.mark.parametrize(
    ("proj_type", "moments"),
    [("std", (10, 3)), ("right", (10, 3)), ("reverse_std", (3, 6)), ("left", (3, 6)), ("full", (3, 3))],
)
def test_galores_projection_decides_the_size_of_its_moments(proj_type: str, moments: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(10, 6))
    optimizer = GaLoreAdamW([{"params": [weight], "rank": 3, "proj_type": proj_type}], lr=0.1)
    weight.grad = torch.randn(10, 6)
    gradient = weight.grad.clone()
    optimizer.step()
    assert optimizer.state[weight]["exp_avg"].shape == moments
    # A first step of Adam is the sign of the projected gradient, put back: it goes down.
    assert (weight.detach() * gradient).sum() < 0
    assert torch.linalg.matrix_rank(weight.detach()) == 3


def test_without_a_projection_galore_is_adamw(base_model: Path) -> None:
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(4, 3)) for _ in range(2))
    galore = GaLoreAdamW([{"params": [ours], "weight_decay": 0.0}], lr=0.01)
    adamw = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.0)
    for _ in range(5):
        ours.grad = torch.randn(4, 3)
        theirs.grad = ours.grad.clone()
        galore.step()
        adamw.step()
    torch.testing.assert_close(ours, theirs)


def galore_groups(base_model: Path, tmp_path: Path, **values: Any) -> dict[str, dict[str, Any]]:
    """Return the optimizer's group of each parameter."""
    prepared, args = prepare(base_model, sft_type="galore", weight_decay=0.03, **values)
    training_args = TrainingArguments(output_dir=str(tmp_path), learning_rate=1e-3, use_cpu=True)
    optimizer = load_tuner(args.tuner).create_optimizer(prepared, args, training_args)
    assert optimizer is not None
    names = {id(parameter): name for name, parameter in prepared.named_parameters()}
    found = {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}
    assert found.keys() == set(names.values())
    return found


def test_galore_projects_linear_layers_and_keeps_the_weight_decay(base_model: Path, tmp_path: Path) -> None:
    groups = galore_groups(base_model, tmp_path, galore_rank=5, galore_scale=0.5, galore_update_proj_gap=7)
    query = groups["model.layers.0.self_attn.q_proj.weight"]
    assert (query["rank"], query["scale"], query["update_proj_gap"], query["weight_decay"]) == (5, 0.5, 7, 0.03)
    assert (groups["model.embed_tokens.weight"]["rank"], groups["model.embed_tokens.weight"]["weight_decay"]) == (
        None,
        0.03,
    )
    for name in ("model.norm.weight", "model.layers.0.self_attn.q_proj.bias"):
        assert (groups[name]["rank"], groups[name]["weight_decay"]) == (None, 0.0)
    assert len([name for name, group in groups.items() if group["rank"] is not None]) == 14
    with_embedding = galore_groups(base_model, tmp_path, galore_with_embedding="true")
    assert with_embedding["model.embed_tokens.weight"]["rank"] == 128
    named = galore_groups(base_model, tmp_path, galore_target_modules="mlp.up_proj,q_proj", galore_per_parameter="true")
    assert len([name for name, group in named.items() if group["rank"] is not None]) == 4
    assert all(len(group["params"]) == 1 and group["frees_gradients"] for group in named.values())
    with pytest.raises(WorkerError, match="galore_target_modules: no module with a matrix is named nonsense"):
        galore_groups(base_model, tmp_path, galore_target_modules="nonsense")


def test_galore_per_parameter_trains_the_same(tmp_path: Path, base_model: Path, chats: Path) -> None:
    def train(name: str, **values: Any) -> list[float | None]:
        job = make_job(tmp_path / name, base_model, chats, sft_type="galore", galore_rank=4, **values)
        return [line.get("loss") for line in read_history(train_here(job))]

    assert train("a") == train("b", galore_per_parameter="true")
