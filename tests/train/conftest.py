"""A tiny random Qwen2 with a byte-level tokenizer and a chat template, made once per session; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_models import make_model_folder, write_chats


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """As many threads as the worker's own processes get, so that sums come out the same."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def hub_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_HUB_OFFLINE=1, which is read when the library is imported."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="session")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 chats of different lengths."""
    return write_chats(tmp_path_factory.mktemp("data") / "chats.jsonl", count=24)


@pytest.fixture(scope="session")
def tokenizer(base_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_model)
