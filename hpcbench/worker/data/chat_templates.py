"""The text of a chat template: which of several is meant, and its clock stopped.

In: what a tokenizer has. Out: one template that writes the same on every day, or the plain text of a chat without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from hpcbench.data.images import text_of
from hpcbench.data.messages import Message
from hpcbench.errors import WorkerError

TEMPLATE_DATE: Final = datetime(2024, 7, 26, tzinfo=UTC)
"""Today, for every chat template that writes it: the day that Llama 3.1's takes where it is not told another."""
CLOCK: Final = "strftime_now"
"""What transformers gives chat templates to ask for the time."""
DEFAULT: Final = "default"
TOOL_USE: Final = "tool_use"
"""What transformers calls the templates of a tokenizer with several: without tools, and with them."""


def pick_chat_template(found: str | Mapping[str, str], *, has_tools: bool) -> str:
    """Return the one template, or of several by name `tool_use` for a chat with tools where it is there, or `default`.

    Raises:
        WorkerError: none of them is for the chat.
    """
    if isinstance(found, str):
        return found
    for name in (TOOL_USE, DEFAULT) if has_tools else (DEFAULT,):
        if name in found:
            return found[name]
    raise WorkerError(
        f"chat template: the tokenizer has {', '.join(sorted(found))}, and none is named {DEFAULT}",
        hint="set template_type to a template of the catalog",
    )


def pin_date(chat_template: str) -> str:
    """Return the template with its clock stopped at TEMPLATE_DATE: prompts are the same on every day."""
    return _STOPPED_CLOCK + chat_template if CLOCK in chat_template else chat_template


def render_plain(chat: Sequence[Message], *, is_prompt: bool, eos: str) -> str:
    """Return the messages one per line, for tokenizers without a chat template; the last answer ends with eos."""
    lines = [text_of(message.get("content", "")) for message in chat]
    return "".join(f"{line}\n" for line in lines) if is_prompt else "\n".join(lines) + eos


def _write_stopped_clock() -> str:
    # transformers 5.23 lets no function of ours into a template, so the fixed date's strftime is written in Jinja.
    signs = [f"%{flag}{letter}" for flag in ("-", "") for letter in "aAbBcdFHIjmMpSuUwWxXyYZ"]
    steps = "".join(f"|replace({sign!r}, {TEMPLATE_DATE.strftime(sign)!r})" for sign in signs)
    # The line break is the one that transformers' environment takes away after a block.
    return f"{{%- macro {CLOCK}(format) %}}{{{{ format{steps} }}}}{{% endmacro %}}\n"


_STOPPED_CLOCK: Final = _write_stopped_clock()
