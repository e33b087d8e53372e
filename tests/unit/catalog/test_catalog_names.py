"""What SWIFT 2.x lists is in the catalogs, every entry is usable, and users can add their own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hpcbench.catalog.agents import AGENT_FORMATS
from hpcbench.catalog.datasets import DATASETS
from hpcbench.catalog.models import MODELS, TEMPLATES
from hpcbench.data.sources import find_dataset
from hpcbench.errors import ConfigError, WorkerError
from hpcbench.worker.data.templates import Template
from tests.support.model_folders import write_model
from tests.support.places import RECORDED
from tests.support.suite_writer import load_one, refusal
from tests.support.tiny_models import make_tokenizer

# ruff: noqa: RUF001
# Taken out of the five documents by a program: the links to ModelScope and what stands in front of them, the tables'
# cells, the JSON example's and the command lines' values, every `--name`. A null id is one that no document links to.
SEED = json.loads((RECORDED / "seed_names.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SEED["models"])
def test_every_model_of_the_documents_has_its_entry_and_the_id_it_is_linked_to(name: str) -> None:
    entry = MODELS.lookup(name)
    assert entry is not None
    assert entry.modelscope == SEED["models"][name] or (SEED["models"][name] is None and entry.modelscope is not None)
    assert entry.source
    assert entry.multimodal == ("-vl" in name)
    assert entry.template is None or entry.template in TEMPLATES.names()


def test_every_dataset_of_the_documents_has_its_entry() -> None:
    for name, linked in SEED["datasets"].items():
        found = DATASETS.lookup(name)
        assert found is not None, name
        # The link of cot-zh leads to the English dataset.
        assert linked in {None, found.modelscope} or name == "cot-zh", name
    for name in DATASETS.names():
        entry = DATASETS.lookup(name)
        assert entry is not None
        assert all(
            hub_id is None or re.fullmatch(r"[\w.-]+/[\w.-]+", hub_id)
            for hub_id in (entry.huggingface, entry.modelscope)
        )


def test_every_template_of_the_documents_has_its_entry() -> None:
    assert set(SEED["templates"]) <= set(TEMPLATES.names())


CHAT = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "Q1"},
    {"role": "assistant", "content": "A1"},
    {"role": "user", "content": "Q2"},
    {"role": "assistant", "content": "A2"},
]
EOS = "<|im_end|>"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("default", f"S\n\n### Human:\nQ1\n\n### Assistant:\nA1\n\n### Human:\nQ2\n\n### Assistant:\nA2{EOS}"),
        ("default-generation", f"Q1A1Q2A2{EOS}"),
        ("chatglm2-generation", f"Q1A1Q2A2{EOS}"),
        ("chatml", (f"<|im_start|>system\nS{EOS}\n<|im_start|>user\nQ1{EOS}\n<|im_start|>assistant\nA1{EOS}\n"
                    f"<|im_start|>user\nQ2{EOS}\n<|im_start|>assistant\nA2{EOS}")),
        ("baichuan", f"S<reserved_102>Q1<reserved_103>A1<reserved_102>Q2<reserved_103>A2{EOS}"),
        ("baichuan2", f"S<reserved_106>Q1<reserved_107>A1<reserved_106>Q2<reserved_107>A2{EOS}"),
        ("chatglm2", f"S\n\n[Round 1]\n\n问：Q1\n\n答：A1\n\n[Round 2]\n\n问：Q2\n\n答：A2{EOS}"),
        ("llama", f"[INST] <<SYS>>\nS\n<</SYS>>\n\nQ1 [/INST] A1 {EOS}[INST] Q2 [/INST] A2{EOS}"),
        ("openbuddy-llama", f"S\n\nUser: Q1\nAssistant: A1\nUser: Q2\nAssistant: A2{EOS}"),
        ("internlm", f"<s><|System|>:S\n<|User|>:Q1<eoh>\n<|Bot|>:A1<eoa>\n<|User|>:Q2<eoh>\n<|Bot|>:A2<eoa>\n{EOS}"),
        ("default-generation-bos", f"Q1A1Q2A2{EOS}"),
        ("chatglm3", f"<|system|>\n S<|user|>\n Q1<|assistant|>\n A1<|user|>\n Q2<|assistant|>\n A2{EOS}"),
        ("ziya", f"S<human>:Q1\n<bot>:A1\n<human>:Q2\n<bot>:A2{EOS}"),
        ("xverse", f"SHuman: Q1\n\nAssistant: A1{EOS}Human: Q2\n\nAssistant: A2{EOS}"),
    ],
)  # fmt: skip
def test_templates_write_what_the_documents_define(name: str, text: str) -> None:
    pytest.importorskip("tokenizers")
    tokenizer = make_tokenizer()
    template = TEMPLATES.lookup(name)
    assert template is not None
    encoded = Template(tokenizer, chat_template=template.jinja).encode(CHAT)
    assert tokenizer.decode(encoded.input_ids) == text
    rounds = Template(tokenizer, chat_template=template.jinja, loss_on_all_rounds=True).encode(CHAT)
    assert rounds.num_label_tokens >= 5


@pytest.mark.parametrize("part", ["vision_config", "visual", "audio_config"])
def test_a_local_multimodal_model_is_refused_by_its_configuration(tmp_path: Path, part: str) -> None:
    folder = write_model(tmp_path / "base", more={part: {"hidden_size": 8}})
    text = "cmd: sft\nargs: {model: ./base, dataset: ms-agent}\nexperiment: [{name: a}]\n"
    assert f"takes images or sound (`{part}` in its config.json), and is of another type" in refusal(tmp_path, text)
    write_model(folder, more={part: None})
    assert load_one(tmp_path, text).args is not None


def test_users_files_add_and_replace_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "hpcbench"
    folder.mkdir()
    (folder / "models.yaml").write_text(
        "My-Model: {huggingface: me/my-model, lora_target_modules: [q], source: me}\n"
        "QWEN-7B-chat: {modelscope: me/qwen, source: me}\n"
    )
    (folder / "datasets.yaml").write_text("mine: {huggingface: me/mine, split: all, source: me}")
    (folder / "templates.yaml").write_text("own: '{{ messages[0].content }}'")
    (folder / "agents.yaml").write_text("broken: {source: me}")
    entry = MODELS.lookup("my-model")
    assert entry is not None
    assert entry.huggingface == "me/my-model"
    replaced = MODELS.lookup("qwen-7b-chat")
    assert replaced is not None
    assert (replaced.huggingface, replaced.modelscope) == (None, "me/qwen")
    assert MODELS.lookup("qwen-7b") is not None
    assert find_dataset("mine", registry=None).splits == ("all",)
    template = TEMPLATES.lookup("own")
    assert template is not None
    assert template.jinja == "{{ messages[0].content }}"
    assert "react" in AGENT_FORMATS.names()
    with pytest.raises(ConfigError, match=r"agents\.yaml:1: broken\.tools_prompt: Field required"):
        AGENT_FORMATS.lookup("broken")


def test_multimodal_models_and_datasets_are_refused_with_the_reason(tmp_path: Path) -> None:
    text = "cmd: sft\nargs: {model_type: qwen-vl-chat, dataset: x}\nexperiment: [{name: a}]\n"
    assert "qwen-vl-chat takes images or sound by code of its own, which this version does not run" in refusal(
        tmp_path, text
    )
    with pytest.raises(WorkerError, match="images or sound"):
        find_dataset("coco-en", registry=None)
