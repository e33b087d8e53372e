"""Eval prompts as the model saw them in training.

In: the messages that lm-eval built for one document. Out: the prompt's text and tokens, by the training's template.
lm-eval never tokenises such a text itself, so special tokens and a BOS cannot differ between training and eval.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpcbench.worker.template import Message, Template

DESCRIPTION_DELIMITER = "\n\n"
"""lm-eval's default between a description and the first question."""


class ChatPrompts:
    """Prompts rendered by the training template, kept with their tokens.

    An eval task's `description` becomes the head of the first user message: as a system message, where lm-eval puts it,
    it would replace the system prompt of the training.
    """

    def __init__(self, template: Template) -> None:
        self._template = template
        self._ids_of: dict[str, list[int]] = {}

    def render(self, messages: Sequence[Message], *, answer_prefix: str = "") -> str:
        """Return the text of a prompt and remember its tokens.

        Args:
            messages: roles and contents without a started answer.
            answer_prefix: what the answer is made to start with (lm-eval's `gen_prefix`).
        """
        messages = fold_description(messages)
        text = self._template.prefix_text(messages)
        if text not in self._ids_of:
            self._ids_of[text] = self._template.prefix_ids(messages)
        if not answer_prefix:
            return text
        self._ids_of[text + answer_prefix] = [*self._ids_of[text], *self.continuation_ids(text, answer_prefix)]
        return text + answer_prefix

    def ids_of(self, text: str) -> list[int] | None:
        """Return the tokens of a rendered prompt, or None for any other text."""
        return self._ids_of.get(text)

    def continuation_ids(self, prompt: str, continuation: str) -> list[int]:
        """Return the tokens with which an answer goes on after a rendered prompt, as in a training sample."""
        prompt_ids = self._ids_of[prompt]
        whole_ids = self._template._continue(prompt_ids, prompt, prompt + continuation)  # noqa: SLF001
        return whole_ids[len(prompt_ids) :]


def fold_description(messages: Sequence[Message]) -> list[Message]:
    """Move a system message (lm-eval's place for a description) to the head of the first user message."""
    if not messages or messages[0]["role"] != "system":
        return list(messages)
    description, (first, *others) = messages[0]["content"], messages[1:]
    touching = description[-1:].isspace() or first["content"][:1].isspace()
    content = description + ("" if touching else DESCRIPTION_DELIMITER) + first["content"]
    return [{"role": first["role"], "content": content}, *others]
