"""Chat templates, tried before anything is queued: what no training could use is refused with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcbench.catalog.models import TEMPLATES
from hpcbench.model_files.chat_template import ANOTHER_TEMPLATE, find_fault
from tests.support.tiny_models import CHATML

START = "{% for m in messages %}<|im_start|>{{ m.role }}\n"
END = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
THINKING = (
    START
    + "{% set c = m.content %}{% if m.role == 'assistant' %}{% set c = c.split('</think>')[-1] %}{% endif %}{{ c }}"
    + END
)
WITHOUT_SYSTEM = START.replace("messages %}", "messages if m.role != 'system' %}") + "{{ m.content }}" + END
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
)
USABLE = [
    CHATML,
    THINKING,
    GEMMA + START + "{{ m.content | trim }}" + END,
    WITHOUT_SYSTEM,
    START + "{% generation %}{{ m.content }}{% endgeneration %}" + END,
    "{{ strftime_now('%d %b %Y') }}" + START + "{{ m.content }}{% if false %}{% break %}{% endif %}" + END,
    START + "{{ m.content }}<|im_end|>\n{% endfor %}",
    START + "{{ {'a': m.content} | tojson(indent=2) }}" + END,
]


@pytest.mark.parametrize(
    "template", [*USABLE, *(entry.jinja for name in TEMPLATES.names() if (entry := TEMPLATES.lookup(name)))]
)
def test_a_template_that_writes_questions_and_answers_is_usable(template: str) -> None:
    assert find_fault(template, system=None, tokens={"bos_token": "<s>", "eos_token": "</s>"}) is None


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (START + "{{ m.content }", "cannot be used: unexpected '}'"),
        (START + "{{ m.content | fromjson }}" + END, "cannot be used: No filter named 'fromjson'."),
        (START + "{{ 1 / 0 }}" + END, "cannot be used: division by zero"),
        (START + "{{ m.text.strip() }}" + END, "cannot be used: 'dict object' has no attribute 'text'"),
        ("", "leaves out what a turn of the user says"),
        (
            START + "{% for part in m.content %}{{ part.text }}{% endfor %}" + END,
            "leaves out what a turn of the user says",
        ),
        (
            START.replace("messages", "messages[:1]") + "{{ m.content }}" + END,
            "leaves out what a turn of the assistant says",
        ),
        (
            START + "{{ m.content }}" + END.replace("assistant\n", "assistant\n<reason>"),
            "writes a chat with its answer differently from the prompt for it",
        ),
    ],
)
def test_a_template_that_no_training_can_use_is_named(template: str, problem: str) -> None:
    expected = ("template_type", f"the tokenizer's chat template {problem}", ANOTHER_TEMPLATE)
    assert find_fault(template, system=None, tokens={}) == expected


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (GEMMA + START + "{{ m.content }}" + END, "takes no system prompt: System role not supported"),
        (WITHOUT_SYSTEM, "leaves out the system prompt"),
    ],
)
def test_a_system_prompt_that_the_template_does_not_write_is_named(template: str, problem: str) -> None:
    hint = f"set system: null, or {ANOTHER_TEMPLATE}"
    assert find_fault(template, system="be brief", tokens={}) == (
        "system",
        f"the tokenizer's chat template {problem}",
        hint,
    )
    assert find_fault(CHATML, system="be brief", tokens={}) is None


def test_a_template_reads_no_file_and_reaches_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hpcbench asks hpcbench answers")
    for text in (f"{{% include '{tmp_path}/secret' %}}", "{{ messages.__class__.__mro__[1].__subclasses__() }}"):
        found: Any = find_fault(text, system=None, tokens={})
        assert found is not None
        assert "cannot be used: " in found[1] or "leaves out" in found[1]


def test_switches_that_a_template_obeys_are_no_lost_text() -> None:
    obeying = START + "{{ m.content | replace('/no_think', '') }}" + END
    assert find_fault(obeying, system="Be brief. /no_think", tokens={}) is None
