"""What plan refuses of a model's files, the job refuses too before it loads them, and more once it has."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from hpcbench.errors import WorkerError
from hpcbench.model_files.tokenizer import read_tokenizer
from hpcbench.schemas.arguments import EvalArgs, SftArgs
from hpcbench.worker.models.files import check_files, check_loaded
from hpcbench.worker.models.loading import load_model, load_tokenizer
from hpcbench.worker.train.token_data import load_data
from hpcbench.worker.train.tokenized import tokenize
from tests.support.tiny_models import make_model_folder, make_tokenizer


def args_of(folder: Path, **values: Any) -> SftArgs:
    return SftArgs(model_id_or_path=str(folder), dtype="fp32", **values)


def make_gpt2(folder: Path) -> Path:
    tokenizer = make_tokenizer()
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_table_of_positions_ends_where_the_check_says(tmp_path: Path) -> None:
    args = args_of(make_gpt2(tmp_path), max_length=33)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    model(input_ids=torch.zeros((1, 32), dtype=torch.long))
    with pytest.raises(IndexError, match="index out of range in self"):
        model(input_ids=torch.zeros((1, 33), dtype=torch.long))
    message = "max_length: max_length 33: more than the 32 positions of"
    with pytest.raises(WorkerError, match=message):
        check_files(args)
    with pytest.raises(WorkerError, match=message):
        check_files(args, eval_args=EvalArgs(max_length=33))
    with pytest.raises(WorkerError, match=message):
        check_loaded(args, model, load_tokenizer(args))
    check_loaded(args_of(tmp_path, max_length=32), model, load_tokenizer(args))


def test_rotary_positions_do_not_end(tmp_path: Path) -> None:
    args = args_of(make_model_folder(tmp_path), max_length=600)
    check_files(args)
    model = load_model(args, "cpu")
    check_loaded(args, model, load_tokenizer(args))
    assert model(input_ids=torch.zeros((1, 600), dtype=torch.long)).logits.isfinite().all()


@pytest.mark.parametrize("pad_token", ["[PAD]", {"content": "[PAD]", "special": True, "__type": "AddedToken"}])
def test_a_pad_token_that_the_vocabulary_lacks_gets_an_id_beyond_it_as_plan_says(
    tmp_path: Path, pad_token: Any
) -> None:
    args = args_of(make_model_folder(tmp_path))
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token": pad_token}))
    tokenizer = load_tokenizer(args)
    assert tokenizer.pad_token_id >= read_tokenizer(tmp_path).ids["pad_token"] == 259
    with pytest.raises(WorkerError, match=r"pad_token '.PAD.' has the id 259 or a higher one, and the model's embed"):
        check_files(args)
    with pytest.raises(WorkerError, match=r"pad_token '.PAD.' has the id 260, and the model's embedding has 259 rows"):
        check_loaded(args, load_model(args, "cpu"), tokenizer)


def test_weights_that_transformers_would_draw_at_random_end_the_job(tmp_path: Path) -> None:
    args = args_of(make_model_folder(tmp_path))
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 3, "layer_types": None}))
    with pytest.raises(WorkerError, match=r"lacks 12 of the model's weights, which would be random: model.layers.2"):
        load_model(args, "cpu")


def test_the_head_of_a_model_that_has_none_is_not_drawn_at_random(tmp_path: Path) -> None:
    args = args_of(make_model_folder(tmp_path))
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": False}))
    with pytest.raises(WorkerError, match=r"lacks 1 of the model's weights, which would be random: lm_head.weight"):
        load_model(args, "cpu")


def test_weights_of_another_shape_than_the_configuration_says_end_the_job(tmp_path: Path) -> None:
    args = args_of(make_model_folder(tmp_path))
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": 300}))
    with pytest.raises(
        WorkerError, match=r"have another shape .*: model.embed_tokens.weight is \(259, 32\) and should"
    ):
        load_model(args, "cpu")


def test_a_row_with_a_token_beyond_the_embedding_is_named(tmp_path: Path) -> None:
    args = args_of(make_model_folder(tmp_path / "model"), dataset=str(tmp_path / "rows.jsonl"), dataset_test_ratio=0)
    rows = [{"query": "a", "response": "b"}, {"query": "a", "response": "<new>"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = load_tokenizer(args)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(
        WorkerError, match=r"row.* 2: the token '<new>' has the id 2.., and the model's embedding has 259 "
    ):
        load_data(args, load=partial(tokenize, on_row=lambda _count: None, on_tokenizing=lambda: None))


def test_code_in_the_folder_does_not_run_without_trust(tmp_path: Path) -> None:
    args = args_of(make_model_folder(tmp_path))
    path = tmp_path / "config.json"
    code = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "nosuch", "auto_map": code}))
    (tmp_path / "code.py").write_text("raise SystemExit(3)")
    with pytest.raises(WorkerError, match="its Python code comes with its weights, and runs only where you trust it"):
        check_files(args)
    with pytest.raises(WorkerError, match="brings Python code of its own, which runs only where you trust it"):
        load_model(args, "cpu")
