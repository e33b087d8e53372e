"""Rendered chats, and what ends an answer in them: values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcbench.data.messages import Message

Tools = Sequence[Mapping[str, Any]]
"""Descriptions of the tools that a chat template writes into the prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerEnds:
    """What ends a generated answer."""

    token_ids: tuple[int, ...]
    text: str = ""
    """What the template writes after an answer as plain text; empty where that is a special token, or nothing."""

    def cut(self, answer: str) -> str:
        """Return the answer without what the template writes after it."""
        return answer.partition(self.text)[0] if self.text else answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """An answer that is trained on, as texts."""

    answer: int
    """Index of its message in the chat."""
    prompt: str
    full: str
    """The prompt with the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A training chat with its system prompt, as the texts that its tokens are made of."""

    chat: Sequence[Message]
    tools: Tools
    turns: Sequence[Turn]

    @property
    def texts(self) -> list[str]:
        """All of its texts."""
        return [text for turn in self.turns for text in (turn.prompt, turn.full)]
