"""Pairs of answers and judged answers as tokens.

In: chats with their answers. Out: encoded rows, cut so that both answers of a pair keep the same prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hpcbench.data.messages import Message
from hpcbench.worker.data.encoded import IGNORED_LABEL, Encoded
from hpcbench.worker.data.rendered import Tools
from hpcbench.worker.data.templates import Template


def encode_answers(
    template: Template,
    messages: Sequence[Message],
    *,
    tools: Tools = (),
    rejected: Message | None = None,
    is_good: bool | None = None,
) -> Encoded:
    """Return a chat with its answer, and with the rejected one beside it, or whether it is a good one.

    Raises:
        WorkerError: the chat template does not write it as it should.
    """
    chosen = template.encode_whole(messages, tools=tools)
    if rejected is None:
        return _cut([replace(chosen, is_good=is_good)], template)[0]
    other = template.encode_whole([*messages[:-1], rejected], tools=tools)
    chosen, other = _cut([chosen, other], template)
    return replace(chosen, rejected=other)


def _cut(rows: list[Encoded], template: Template) -> list[Encoded]:
    """Return answers to one prompt, whose beginning is cut off until the longest fits; then the answers' ends are."""
    num_prompt = min(prompt_length(row) for row in rows)
    longest = max(len(row.input_ids) for row in rows) - num_prompt
    kept = num_prompt if template.max_prompt_length is None else min(num_prompt, template.max_prompt_length)
    if kept + longest > template.max_length:
        if template.drops_long:
            return [Encoded(input_ids=[], labels=[], truncated=True) for _ in rows]
        kept = min(kept, max(1, template.max_length - longest))
    start = num_prompt - kept
    end = start + template.max_length
    return [replace(row.part(start, end), truncated=start > 0 or len(row.input_ids) > end) for row in rows]


def prompt_length(row: Encoded) -> int:
    """Return the tokens before the answer."""
    return next((index for index, label in enumerate(row.labels) if label != IGNORED_LABEL), len(row.labels))
