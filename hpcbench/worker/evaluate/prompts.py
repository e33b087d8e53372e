"""Eval prompts as the model saw them in training.

In: the messages that lm-eval built for one document. Out: the prompt's text and tokens, by the training's template.
lm-eval never tokenises such a text itself, so special tokens and a BOS cannot differ between training and eval.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from hpcbench.worker.data.templates import Message, Template

DESCRIPTION_DELIMITER = "\n\n"
"""lm-eval's default between a description and the first question."""
_ANSWER = "x"


class ChatPrompts:
    """Prompts rendered by the training's template, kept with their tokens.

    An eval task's `description` becomes the head of the first user message: as a system message, where lm-eval puts it,
    it would replace the system prompt of the training.
    """

    def __init__(self, template: Template) -> None:
        self._template = template
        self._ids_of: dict[str, list[int]] = {}
        self._started: set[str] = set()

    def render(self, messages: Sequence[Message]) -> str:
        """Return the text of the prompt for the next answer and remember its tokens."""
        messages = fold_description(messages)
        text = self._template.prefix_text(messages)
        if text not in self._ids_of:
            self._ids_of[text] = self._template.prefix_ids(messages)
        return text

    def render_started(self, messages: Sequence[Message], answer_start: str) -> str:
        """Return the text of a prompt whose answer starts so (lm-eval's `gen_prefix`) and remember its tokens."""
        prompt = self.render(messages)
        text = prompt + self._answer_lead + answer_start
        self._ids_of[text] = self._continue(prompt, text)
        self._started.add(text)
        return text

    def ids_of(self, text: str) -> list[int] | None:
        """Return the tokens of a rendered prompt, or None for any other text."""
        return self._ids_of.get(text)

    def encode_pair(self, prompt: str, answer: str) -> tuple[list[int], list[int]]:
        """Return the tokens of a rendered prompt and those of an answer to it, as a training sample has them.

        What the template itself writes before an answer belongs to the prompt, unless it shares a token with the
        answer.
        """
        lead = "" if prompt in self._started else self._answer_lead
        given_ids = self._continue(prompt, prompt + lead)
        whole_ids = self._continue(prompt, prompt + lead + answer)
        if whole_ids[: len(given_ids)] != given_ids or len(whole_ids) == len(given_ids):
            given_ids = self._ids_of[prompt]
        return given_ids, whole_ids[len(given_ids) :]

    @cached_property
    def _answer_lead(self) -> str:
        """What the template writes between a prompt and the answer in it: Llama 2's a space, most others' nothing."""
        question = {"role": "user", "content": _ANSWER}
        prompt = self._template.prefix_text([question])
        whole = self._template._render(  # noqa: SLF001
            self._template._with_system([question, {"role": "assistant", "content": _ANSWER}]),  # noqa: SLF001
            is_prompt=False,
        )
        return whole.removeprefix(prompt).partition(_ANSWER)[0] if whole.startswith(prompt) else ""

    def _continue(self, prompt: str, text: str) -> list[int]:
        """Return the tokens of a text that goes on after a rendered prompt."""
        return self._template._continue(self._ids_of[prompt], prompt, text)  # noqa: SLF001


def fold_description(messages: Sequence[Message]) -> list[Message]:
    """Move a system message (lm-eval's place for a description) to the head of the first user message."""
    if not messages or messages[0]["role"] != "system":
        return list(messages)
    description, (first, *others) = messages[0]["content"], messages[1:]
    touching = description[-1:].isspace() or first["content"][:1].isspace()
    content = description + ("" if touching else DESCRIPTION_DELIMITER) + first["content"]
    return [{"role": first["role"], "content": content}, *others]
