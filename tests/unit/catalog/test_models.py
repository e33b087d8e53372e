"""The catalog of models: every entry is usable, and it needs no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hpcbench.catalog.models import MODELS, TEMPLATES


@pytest.mark.parametrize("name", MODELS.names())
def test_every_entry_has_ids_and_known_templates(name: str) -> None:
    entry = MODELS.lookup(name)
    assert entry is not None
    assert entry.huggingface is not None or entry.modelscope is not None
    assert all(hub_id is None or hub_id.count("/") == 1 for hub_id in (entry.huggingface, entry.modelscope))
    assert entry.lora_target_modules or entry.multimodal
    assert entry.template is None or TEMPLATES.lookup(entry.template)


def test_a_model_is_found_in_any_case() -> None:
    entry = MODELS.lookup("Qwen-7B-chat")
    assert entry is not None
    assert (entry.huggingface, entry.lora_target_modules, entry.needs_remote_code) == (
        "Qwen/Qwen-7B-Chat",
        ("c_attn",),
        True,
    )
    assert MODELS.lookup("nonsense") is None


def test_the_catalog_loads_without_torch() -> None:
    code = (
        "import sys; from hpcbench.catalog.models import MODELS; MODELS.lookup('x'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
