"""What plan says of a local model that cannot do what a suite asks for: its files alone decide, without torch."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcbench.catalog.hubs import OnHub
from hpcbench.config.loading import load_suites
from hpcbench.errors import ConfigError
from hpcbench.hub.models import locate_model
from hpcbench.model_files.tokenizer import read_tokenizer
from hpcbench.model_files.weights import ModelFileError, check_lfs
from hpcbench.schemas.arguments import SftArgs
from tests.support.model_folders import (
    GPT2,
    POINTER,
    gpt2_tensors,
    llama_tensors,
    write_model,
    write_safetensors,
)
from tests.support.tiny_models import CHATML

Break = Callable[[Path], object]


def plan(folder: Path, *, cmd: str = "sft", eval_args: Any = None, **args: Any) -> str:
    """Return the message of a suite of one experiment on the model `folder / "model"`, without its place."""
    (folder / "train.jsonl").write_text('{"query": "a", "response": "b"}\n')
    given = {"model_id_or_path": "./model", "dataset": "./train.jsonl", "max_length": 16, **args}
    experiment = {"name": "one", "cmd": cmd, "args": given, "eval_dataset": ["arc_easy"], "eval_args": eval_args or {}}
    suite = folder / "suite.yaml"
    suite.write_text(json.dumps({"device": "cpu", "experiment": [experiment]}))
    try:
        load_suites([suite])
    except ConfigError as error:
        text = str(error).replace(f"{folder}/", "")
        return text.partition(": ")[2]
    return ""


def test_a_sound_model_is_taken(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    assert plan(tmp_path) == ""


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def shard(folder: Path, *, left_out: bool = False, misplaced: bool = False) -> None:
    tensors = list(llama_tensors().items())
    (folder / "model.safetensors").unlink()
    write_safetensors(folder / "model-1.safetensors", dict(tensors[:5]))
    if not left_out:
        write_safetensors(folder / "model-2.safetensors", dict(tensors[6 if misplaced else 5 :]))
    names = {name: f"model-{1 if index < 5 else 2}.safetensors" for index, (name, _) in enumerate(tensors)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


BROKEN: dict[str, tuple[Break, str]] = {
    "weights are a pointer": (
        lambda folder: (folder / "model.safetensors").write_bytes(POINTER),
        (
            "model/model.safetensors is a Git LFS pointer, 129 bytes, and not the file itself\n"
            "  hint: run `git lfs pull` in model"
        ),
    ),
    "tokenizer is a pointer": (
        lambda folder: (folder / "tokenizer.json").write_bytes(POINTER),
        (
            "model/tokenizer.json is a Git LFS pointer, 129 bytes, and not the file itself\n"
            "  hint: run `git lfs pull` in model"
        ),
    ),
    "weights are cut off": (
        lambda folder: cut(folder / "model.safetensors"),
        "model/model.safetensors is cut off: 3053 of 3153 bytes\n  hint: download it again",
    ),
    "weights are a web page": (
        lambda folder: (folder / "model.safetensors").write_text("<html>Not found</html>"),
        "model/model.safetensors (22 bytes) is not safetensors\n  hint: download it again",
    ),
    "pickled weights are cut off": (
        lambda folder: (
            (folder / "model.safetensors").rename(folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04" + bytes(60))
        ),
        "model/pytorch_model.bin is cut off after 64 bytes\n  hint: download it again",
    ),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "model holds no weights\n  hint: transformers looks for model.safetensors or pytorch_model.bin",
    ),
    "a shard is missing": (
        lambda folder: shard(folder, left_out=True),
        (
            "model lacks 1 of the 2 files that model.safetensors.index.json names: model-2.safetensors\n"
            "  hint: download the model again"
        ),
    ),
    "a shard is another model's": (
        lambda folder: shard(folder, misplaced=True),
        (
            "model/model-2.safetensors has no model.layers.0.mlp.gate_proj.weight, which model.safetensors.index.json says "
            "that it has"
        ),
    ),
    "the index is nested without an end": (
        lambda folder: (
            (folder / "model.safetensors").rename(folder / "model.safetensors.index.json").write_text("[" * 100_000)
        ),
        "model/model.safetensors.index.json cannot be read: no `weight_map` of tensors to files in it",
    ),
    "no tokenizer": (
        lambda folder: (folder / "tokenizer.json").unlink(),
        "model holds no tokenizer\n  hint: transformers looks for tokenizer.json or tokenizer.model, for example",
    ),
    "config is a list": (
        lambda folder: (folder / "config.json").write_text("[]"),
        "model/config.json is not a JSON object\n  hint: download it again",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, name: str) -> None:
    break_it, message = BROKEN[name]
    break_it(write_model(tmp_path / "model"))
    assert plan(tmp_path) == f"experiment[one].args.model_id_or_path: {message}"


def test_a_model_in_shards_is_taken(tmp_path: Path) -> None:
    shard(write_model(tmp_path / "model"))
    assert plan(tmp_path) == ""


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"architectures": ["BertForMaskedLM"]},
            (
                "model is a BertForMaskedLM, which has no head that predicts the next token\n"
                "  expected: a causal language model"
            ),
        ),
        (
            {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            (
                "model has an encoder and a decoder (`is_encoder_decoder` in its config.json)\n"
                "  expected: a decoder-only language model"
            ),
        ),
        (
            {"model_type": None},
            (
                "model: its config.json has no model_type, by which transformers finds the model's code\n"
                "  expected: the config.json of a transformers model"
            ),
        ),
        (
            {"quantization_config": {"quant_method": "mxfp4"}},
            (
                "model is quantised (mxfp4 in its config.json)\n  expected: plain weights, or those of aqlm, awq, "
                "bitsandbytes, compressed-tensors, gptq, hqq\n"
                "  hint: take the model that it was made of; quantization_bit: 4 quantises it when it is loaded"
            ),
        ),
    ],
)
def test_models_of_another_kind_are_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    write_model(tmp_path / "model", more=config)
    assert plan(tmp_path) == f"experiment[one].args.model_id_or_path: {message}"
    assert plan(tmp_path, cmd="eval") == f"experiment[one].args.model_id_or_path: {message}"


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="its table of types is read")
def test_a_type_that_the_installed_transformers_lacks_is_refused_or_needs_trust(tmp_path: Path) -> None:
    version = importlib.metadata.version("transformers")
    write_model(tmp_path / "model", more={"model_type": "nosuch"})
    assert plan(tmp_path) == (
        f"experiment[one].args.model_id_or_path: model: transformers {version} has no code for a causal language model "
        "of type 'nosuch'\n  hint: install a transformers that has it, or take another model"
    )
    code = {"AutoModelForCausalLM": "modeling_nosuch.NoSuch"}
    write_model(tmp_path / "model", more={"model_type": "nosuch", "auto_map": code})
    assert plan(tmp_path) == (
        "experiment[one].args.model_id_or_path: model: its Python code comes with its weights, and runs only where you "
        "trust it\n  expected: trust_remote_code: true\n  hint: args: {trust_remote_code: true}, if you trust its folder"
    )
    assert plan(tmp_path, trust_remote_code=True) == ""
    write_model(tmp_path / "model", more={"auto_map": code})
    assert plan(tmp_path) == ""


BNB4 = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "fp4",
    "bnb_4bit_compute_dtype": "bfloat16",
}


def test_weights_of_bitsandbytes_are_taken_where_the_arguments_say_the_same(tmp_path: Path) -> None:
    write_model(tmp_path / "model", more={"quantization_config": BNB4})
    assert plan(tmp_path) == (
        "experiment[one]: model is quantised by bitsandbytes as its config.json says, and the arguments say "
        "otherwise\n  expected: quantization_bit: 4, bnb_4bit_quant_type: fp4, bnb_4bit_use_double_quant: false"
    )
    same: dict[str, Any] = {"quantization_bit": 4, "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False}
    assert plan(tmp_path, **same) == ""
    assert "expected: bnb_4bit_comp_dtype: bf16" in plan(tmp_path, **same, dtype="fp32")


def test_a_length_beyond_a_table_of_positions_is_refused_and_beyond_rotary_ones_not(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    assert plan(tmp_path, max_length=17) == ""
    write_model(tmp_path / "model", GPT2, tensors=gpt2_tensors())
    assert plan(tmp_path, max_length=16) == ""
    assert plan(tmp_path, max_length=17) == (
        "experiment[one].args.max_length: max_length 17: more than the 16 positions of model, which fails on longer "
        "texts\n  expected: 16 at most"
    )
    assert "max_length 16 and max_new_tokens 8 together: more than the 16" in plan(
        tmp_path, predict_with_generate=True, max_new_tokens=8
    )
    assert plan(tmp_path, cmd="eval", max_length=17) == ""
    assert plan(tmp_path, eval_args={"max_length": 17}).startswith(
        "experiment[one].eval_args.max_length: max_length 17: more than the 16 positions of model"
    )


def test_a_special_token_beyond_the_embedding_is_refused_with_both_numbers(tmp_path: Path) -> None:
    write_model(tmp_path / "model", tensors=llama_tensors(rows=7), more={"vocab_size": 7})
    assert plan(tmp_path) == (
        "experiment[one].args.model_id_or_path: model: the tokenizer's pad_token '<pad>' has the id 7, and the "
        "model's embedding has 7 rows, for ids up to 6\n"
        "  hint: name another pad_token in the folder's tokenizer_config.json, or add a row to the model and save it"
    )
    write_model(tmp_path / "model", tokenizer={"eos_token": "<end>", "pad_token": {"content": "[PAD]"}})
    assert "pad_token '[PAD]' has the id 8 or a higher one, and the model's embedding has 8 rows" in plan(tmp_path)
    write_model(tmp_path / "model", tokenizer={"eos_token": "a", "pad_token": "<end>"})
    assert plan(tmp_path) == ""


def test_an_embedding_of_another_size_than_the_configuration_says_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "model", more={"vocab_size": 12})
    assert plan(tmp_path) == (
        "experiment[one].args.model_id_or_path: model: its embedding has 8 rows, and its config.json says 12 "
        "(vocab_size)\n  expected: the config.json of these weights"
    )


def test_a_target_that_the_model_lacks_is_refused_even_beside_one_that_it_has(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    modules = "down_proj, embed_tokens, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    assert plan(tmp_path, lora_target_modules=["q_proj", "c_attn"]) == (
        f"experiment[one].args.lora_target_modules: model has no module named c_attn\n  expected: {modules}"
    )
    for name, method in (
        ("lora_modules_to_save", "lora"),
        ("ia3_target_modules", "ia3"),
        ("galore_target_modules", "galore"),
    ):
        assert f"args.{name}: model has no module named haed\n" in plan(tmp_path, **{"sft_type": method, name: "haed"})
    fitting = ("ALL", "DEFAULT", "EMBEDDING", "q_proj", "self_attn.q_proj", "model.layers.1.mlp.up_proj", "lm_head")
    assert plan(tmp_path, lora_target_modules=list(fitting)) == ""


def test_words_for_several_modules_are_names_where_the_argument_does_not_take_them(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    for word in ("ALL", "DEFAULT", "EMBEDDING"):
        text = plan(tmp_path, sft_type="full", use_galore=True, galore_target_modules=[word])
        assert f"args.galore_target_modules: model has no module named {word}\n" in text
    assert "model has no module named ALL\n" in plan(tmp_path, sft_type="ia3", ia3_target_modules=["ALL"])
    assert plan(tmp_path, sft_type="ia3", ia3_target_modules=["DEFAULT", "up_proj"]) == ""


@pytest.mark.parametrize(("method", "word"), [("lora", "mlp"), ("lora", "norm"), ("galore", "self_attn")])
def test_a_target_without_a_matrix_is_refused(tmp_path: Path, method: str, word: str) -> None:
    write_model(tmp_path / "model")
    name = f"{method}_target_modules"
    args: dict[str, Any] = {"sft_type": method, name: ["q_proj", word]}
    assert plan(tmp_path, **args).startswith(
        f"experiment[one].args.{name}: model has no matrix in a module named {word}\n"
    )
    assert plan(tmp_path, lora_modules_to_save=["norm", "mlp"]) == ""


def test_ia3_scales_inputs_of_its_targets_only(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    targets: dict[str, Any] = {"sft_type": "ia3", "ia3_target_modules": ["k_proj"]}
    assert plan(tmp_path, **targets, ia3_feedforward_modules=["down_proj"]) == (
        "experiment[one].args.ia3_feedforward_modules: `ia3_feedforward_modules` must be among `ia3_target_modules`\n"
        "  hint: name them in both"
    )
    assert plan(tmp_path, **targets, ia3_feedforward_modules=["k_proj"]) == ""


def test_targets_among_experts_or_in_code_from_the_folder_are_left_to_the_job(tmp_path: Path) -> None:
    write_model(tmp_path / "model", tensors={**llama_tensors(), "model.layers.0.mlp.experts.0.w1.weight": (4, 4)})
    assert plan(tmp_path, lora_target_modules="c_attn") == ""


def test_more_layers_than_the_model_has_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    assert plan(tmp_path, sft_type="lisa", lisa_activated_layers=3) == (
        "experiment[one].args.lisa_activated_layers: lisa_activated_layers: 3 of the 2 layers of model\n"
        "  expected: 2 at most"
    )
    assert plan(tmp_path, sft_type="llamapro", llamapro_num_new_blocks=4) == (
        "experiment[one].args.llamapro_num_new_blocks: llamapro_num_new_blocks: 4 blocks in 4 groups do not fit into 2 "
        "layers\n  hint: the groups must divide the blocks and be no more than the layers"
    )
    assert plan(tmp_path, sft_type="llamapro", llamapro_num_new_blocks=4, llamapro_num_groups=2) == ""


@pytest.mark.parametrize(
    ("files", "options", "refused"),
    [
        ({}, {"chat_template": [{"name": "rag", "template": "x"}]}, True),
        ({}, {"chat_template": [{"name": "default", "template": CHATML}, {"name": "rag", "template": "y"}]}, False),
        ({"additional_chat_templates/rag.jinja": "x"}, {}, True),
        ({"additional_chat_templates/rag.jinja": "x", "chat_template.jinja": CHATML}, {}, False),
        ({}, {"chat_template": CHATML}, False),
    ],
)
def test_chat_templates_without_a_default_are_refused_unless_another_is_named(
    tmp_path: Path, files: dict[str, str], options: dict[str, Any], refused: bool
) -> None:
    folder = write_model(tmp_path / "model", tokenizer={"eos_token": "<end>", **options})
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    message = (
        "experiment[one]: model: of its tokenizer's chat templates (rag) none is named default\n"
        "  hint: set template_type to a template of the catalog"
    )
    assert plan(tmp_path) == (message if refused else "")
    assert plan(tmp_path, template_type="chatml") == ""


@pytest.mark.parametrize("token", ["<s>", {"content": "<s>"}, None])
def test_a_template_that_computes_with_the_first_token_is_usable(tmp_path: Path, token: Any) -> None:
    """Llama 3's way of writing; a token that no file names may be the tokenizer class's own."""
    first = "{% set content = bos_token + content %}"
    template = (
        "{% for message in messages %}{% set content = message.role + ': ' + message.content + eos_token %}"
        f"{{% if loop.first %}}{first}{{% endif %}}{{{{ content }}}}{{% endfor %}}"
    )
    write_model(tmp_path / "model", tokenizer={"eos_token": "<end>", "bos_token": token, "chat_template": template})
    assert plan(tmp_path) == ""
    tokens = {} if token is None else {"bos_token": "<s>"}
    assert read_tokenizer(tmp_path / "model").tokens == {"eos_token": "<end>", **tokens}


def test_plain_text_needs_no_chat_template(tmp_path: Path) -> None:
    write_model(
        tmp_path / "model", tokenizer={"eos_token": "<end>", "chat_template": [{"name": "rag", "template": "x"}]}
    )
    (tmp_path / "text.txt").write_text("once upon a time\n")
    assert "none is named default" in plan(tmp_path)
    assert plan(tmp_path, dataset="text.txt") == ""
    assert "none is named default" in plan(tmp_path, dataset="text.txt", val_dataset="train.jsonl")


def test_a_model_in_the_hubs_cache_is_checked_and_one_that_is_only_an_id_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    repository = tmp_path / "home/hub/models--owner--small"
    write_model(repository / "snapshots/abc", GPT2, tensors=gpt2_tensors())
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("abc")
    assert "more than the 16 positions of Hugging Face's owner/small" in plan(
        tmp_path, model_id_or_path="owner/small", max_length=17
    )
    # Another cache may hold what is missing here.
    (repository / "snapshots/abc/model.safetensors").unlink()
    assert plan(tmp_path, model_id_or_path="owner/small") == ""
    assert plan(tmp_path, model_id_or_path="owner/large") == ""
    (suite,) = load_suites([tmp_path / "suite.yaml"])
    assert suite.remarks == (
        "not checked: Hugging Face's owner/large: only an id here; jobs look at the model's files before they load it",
    )


def test_a_folder_in_the_current_directory_does_not_stand_before_a_repository_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gpt2").mkdir()
    monkeypatch.chdir(tmp_path)
    place = locate_model(SftArgs(model_id_or_path="gpt2"), {})
    assert isinstance(place, OnHub)
    assert (place.hub, place.id) == ("huggingface", "gpt2")


def test_a_file_that_the_user_may_not_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = write_model(tmp_path / "model") / "model.safetensors"
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelFileError, match="cannot be read: Permission denied") as caught:
        check_lfs(path)
    assert caught.value.hint == f"ask its owner for chmod -R a+rX {path.parent}"


def test_a_model_of_images_in_the_hubs_cache_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    repository = tmp_path / "home/hub/models--owner--images"
    write_model(repository / "snapshots/abc", {**GPT2, "vision_config": {}}, tensors=gpt2_tensors())
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("abc")
    assert "owner/images takes images or sound (`vision_config` in its config.json)" in plan(
        tmp_path, model_id_or_path="owner/images"
    )


def test_an_export_that_the_model_does_not_allow_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    asked = {"quant_method": "gptq", "quant_bits": 4, "quant_n_samples": 1}
    text = plan(tmp_path, cmd="export", **asked, group_size=128)
    assert text.startswith("experiment[one].args.group_size: model: model.layers.0.mlp.down_proj has ")
    assert "inputs, which groups of 128 do not divide\n  expected: " in text
    assert plan(tmp_path, cmd="export", **asked, group_size=-1) == ""
    write_model(tmp_path / "model", more={"quantization_config": {"quant_method": "gptq", "bits": 4}})
    assert plan(tmp_path, cmd="export", **asked, group_size=-1) == (
        "experiment[one].args.quant_bits: model is quantised already (gptq, 4 bits)\n  expected: a model of plain weights"
    )


def test_an_export_needs_as_many_rows_as_it_calibrates_on(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    asked = {"quant_method": "gptq", "quant_bits": 4, "group_size": -1}
    assert plan(tmp_path, cmd="export", **asked).replace(f"{tmp_path}/", "") == (
        "experiment[one].args.dataset: 256 rows to calibrate on, and train.jsonl has 1\n"
        "  expected: quant_n_samples of 1 at most\n"
        "  hint: args: {quant_n_samples: 1}, or name more data in dataset"
    )
    assert plan(tmp_path, cmd="export", **asked, quant_n_samples=1) == ""
