"""Chats to tokens and labels, by the tokenizer's own chat template.

In: messages as `{"role": ..., "content": ...}`. Out: token ids with -100 where no loss is taken.
What is trained on follows exactly the tokens that an evaluation's prompt ends with; where a template breaks that,
encoding raises instead of training on something else. It never reads data or loads a model.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Final, Literal

from jinja2 import TemplateError

from hpcbench.catalog.agents import AgentFormat
from hpcbench.catalog.models import MODELS, TEMPLATES
from hpcbench.data.images import images_of
from hpcbench.data.messages import CALLS, MASKED, NO_TOOLS_HINT, Message
from hpcbench.errors import WorkerError
from hpcbench.model_files.chat_template import comparable_text
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.data.agent_format import find_agent_format
from hpcbench.worker.data.chat_templates import (
    CLOCK,
    DEFAULT,
    TEMPLATE_DATE,
    pick_chat_template,
    pin_date,
    render_plain,
)
from hpcbench.worker.data.encoded import IGNORED_LABEL, Encoded
from hpcbench.worker.data.images import ImageInputs
from hpcbench.worker.data.processor import load_processor
from hpcbench.worker.data.rendered import AnswerEnds, Rendered, Tools, Turn

logger = logging.getLogger(__name__)

TruncationStrategy = Literal["truncation_left", "delete", "split"]
_RENDERING_ERRORS: Final = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
"""What a template's expressions can raise: jinja2 hands on what Python raises in them."""
NO_SYSTEM: Final = "the chat template leaves out the system prompt"
_PROBE: Final = "QXZV"


class TemplateRejectsError(WorkerError):
    """A chat template refuses a chat."""


class Template:
    """How chats become prompts and training samples for one tokenizer."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        system: str | None = None,
        max_length: int = 2048,
        truncation_strategy: TruncationStrategy = "truncation_left",
        loss_on_all_rounds: bool = False,
        loss_on_prompt: bool = False,
        chat_template: str | None = None,
        name: str = "",
        loss_scale: AgentFormat | None = None,
        num_embeddings: int | None = None,
        max_prompt_length: int | None = None,
        images: ImageInputs | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.system = system
        self.max_length = max_length
        self.max_prompt_length = max_prompt_length
        self._truncation = truncation_strategy
        self._all_rounds = loss_on_all_rounds
        self._on_prompt = loss_on_prompt
        self._loss_scale = loss_scale
        self._chat_template: str | Mapping[str, str] | None = chat_template or tokenizer.chat_template
        # What the catalog's templates do with a system prompt is known, and right for their models.
        self._written_roles = {"user"} if chat_template else {"user", "system"}
        self._name = name
        self.images = images
        """What pictures become; None for a model that reads none."""
        self._num_embeddings = num_embeddings
        if tokenizer.eos_token_id is None:
            raise WorkerError("the tokenizer has no end-of-sequence token, so no answer could ever end")

    @classmethod
    def from_args(cls, args: SftArgs, tokenizer: Any, *, num_embeddings: int | None = None) -> Template:
        """Return the template that the arguments ask for; it encodes no token beyond the model's embeddings.

        Raises:
            WorkerError: `template_type` names no template of the catalog.
        """
        entry = MODELS.lookup(args.model_type) if args.model_type is not None else None
        named = None
        if args.template_type is not None:
            named = TEMPLATES.lookup(args.template_type)
            if named is None:
                raise WorkerError(
                    f"template_type: no template {args.template_type!r}; known: {', '.join(TEMPLATES.names())}",
                    hint="leave template_type out to use the tokenizer's own chat template",
                )
        processor = load_processor(args, tokenizer)
        images = None if processor is None else ImageInputs(processor, max_pixels=args.max_pixels)
        if images is not None and images.chat_template is not None:
            tokenizer.chat_template = images.chat_template
        elif named is None and tokenizer.chat_template is None and entry is not None and entry.template is not None:
            named = TEMPLATES.lookup(entry.template)
        return cls(
            tokenizer,
            system=args.system,
            max_length=args.max_length,
            truncation_strategy=args.truncation_strategy,
            loss_on_all_rounds=args.loss_on_all_rounds,
            loss_on_prompt=args.loss_on_prompt,
            chat_template=None if named is None else named.jinja,
            name="" if named is None else str(args.template_type or (entry and entry.template)),
            loss_scale=find_agent_format(args) if args.use_loss_scale else None,
            num_embeddings=num_embeddings,
            max_prompt_length=args.max_prompt_length,
            images=images,
        )

    @property
    def drops_long(self) -> bool:
        """Whether samples that are too long are dropped."""
        return self._truncation == "delete"

    @property
    def chat_template(self) -> str | Mapping[str, str] | None:
        """Its text, or several by name; None without one."""
        return self._chat_template

    @property
    def has_chat_template(self) -> bool:
        """Whether there is one; without it prompts are the plain messages, one per line."""
        return self._chat_template is not None

    @cached_property
    def description(self) -> str:
        """Which template it is, with a hash of its text, and the date that it writes if it writes one."""
        if self._chat_template is None:
            return "none: messages joined by line breaks"
        try:
            text = pick_chat_template(self._chat_template, has_tools=False)
        except WorkerError:  # of no concern to a training on plain text
            return f"none of the tokenizer's templates is named {DEFAULT}"
        source = f"{self._name} of the catalog" if self._name else "the tokenizer's"
        date = f", dated {TEMPLATE_DATE:%Y-%m-%d}" if CLOCK in text else ""
        return f"{source}, sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}{date}"

    @cached_property
    def takes_system(self) -> bool:
        """Whether a system prompt comes to stand in the prompts; templates of base models leave it out."""
        chat = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "x"}]
        try:
            return _PROBE in self._render(chat, is_prompt=True)
        except WorkerError:
            return True  # refused where a chat has one

    @cached_property
    def answer_ends(self) -> AnswerEnds:
        """What ends an answer: the tokenizer's end token, and what the template writes after an answer."""
        eos = self.tokenizer.eos_token_id
        chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _PROBE}]
        try:
            rendered = self._render(chat, is_prompt=False)
        except WorkerError:
            return AnswerEnds(token_ids=(eos,))
        tail = rendered.rpartition(_PROBE)[2].strip() if _PROBE in rendered else ""
        ids = self.tokenizer(tail, add_special_tokens=False)["input_ids"] if tail else []
        if ids and self._is_special(ids[0]):
            return AnswerEnds(token_ids=tuple(dict.fromkeys((eos, ids[0]))))
        return AnswerEnds(token_ids=(eos,), text=tail)

    def prefix_text(self, messages: Sequence[Message]) -> str:
        """Return the prompt for the next answer, as text without the special tokens a tokenizer adds by itself."""
        return self._render(self._with_system(messages), is_prompt=True)

    def prefix_ids(self, messages: Sequence[Message], *, tools: Tools = ()) -> list[int]:
        """Return the prompt for the next answer, as the tokens that training conditions on."""
        return self._prompt_ids(self._with_system(messages), tools)

    def encode_text(self, text: str) -> Encoded:
        """Return plain text as one training sample: the tokenizer's own start token, the text, an end token.

        Loss is on every token but the first, which nothing predicts.
        """
        ids = list(self.tokenizer(text)["input_ids"])
        if ids[-1:] != [self.tokenizer.eos_token_id]:
            ids.append(self.tokenizer.eos_token_id)
        weights = None if self._loss_scale is None else [1.0] * len(ids)
        return self._fit(self._check_ids(Encoded(input_ids=ids, labels=list(ids), weights=weights)))

    def encode(self, messages: Sequence[Message], *, tools: Tools = ()) -> Encoded:
        """Return one training sample of at most `max_length` tokens; see `encode_whole`."""
        return self._fit(self.encode_whole(messages, tools=tools))

    def encode_whole(self, messages: Sequence[Message], *, tools: Tools = ()) -> Encoded:
        """Return one training sample, however long.

        Loss is on the last answer and its end, on all answers, or on every token.

        Args:
            messages: the chat.
            tools: descriptions of the tools that the chat template writes into the prompt.

        Raises:
            WorkerError: the chat does not end with an answer, the template's prompt is not what training would see, or
                the template does not write tools or their calls.
        """
        rendered = self.render(messages, tools=tools)
        return self.assemble(rendered, self.tokenize(rendered.texts))

    def encode_batch(self, chats: Sequence[tuple[Sequence[Message], Tools]]) -> list[Encoded]:
        """Return what `encode` makes of each chat, by one call of the tokenizer, which a call a text is slower than.

        Raises:
            WorkerError: one of the chats cannot be encoded; the message does not say which.
        """
        rendered = [self.render(messages, tools=tools) for messages, tools in chats]
        tokens = self.tokenize([text for chat in rendered for text in chat.texts])
        return [self._fit(self.assemble(chat, tokens)) for chat in rendered]

    def render(self, messages: Sequence[Message], *, tools: Tools = ()) -> Rendered:
        """Return a training chat as the texts that its tokens are made of; see `encode_whole`."""
        chat = self._with_system(messages)
        if not chat or chat[-1]["role"] != "assistant":
            raise WorkerError("a training chat must end with an assistant message")
        answers = [index for index, message in enumerate(chat) if message["role"] == "assistant"]
        turns: list[Turn] = []
        text = ""
        for answer in answers if self._all_rounds else answers[-1:]:
            prompt = self._render(chat[:answer], tools, is_prompt=True)
            full = self._render(chat[: answer + 1], tools, is_prompt=False)
            self._check_starts_with(prompt, text)
            self._check_starts_with(full, prompt)
            turns.append(Turn(answer=answer, prompt=prompt, full=full))
            text = full
        return Rendered(chat=chat, tools=tools, turns=turns)

    def assemble(self, rendered: Rendered, tokens: Mapping[str, list[int]]) -> Encoded:
        """Return a rendered chat as one training sample, made of the tokens of its texts; see `encode_whole`."""
        chat, turns = rendered.chat, rendered.turns
        input_ids: list[int] = []
        labels: list[int] = []
        weights: list[float] = []
        text = ""
        for turn in turns:
            prompt, full = turn.prompt, turn.full
            prompt_ids = self._join(input_ids, text, prompt, tokens[prompt])
            labels += [IGNORED_LABEL] * (len(prompt_ids) - len(input_ids))
            answer_ids = self._join(prompt_ids, prompt, full, tokens[full])[len(prompt_ids) :]
            ended_ids = self._end_answer(answer_ids)
            if turn is turns[-1]:
                answer_ids = ended_ids
            scale = self._weigh(chat[turn.answer], prompt, full, prompt_ids, ended_ids[: len(answer_ids)])
            scale += [0.0] * (len(answer_ids) - len(scale))
            labels += [token if weight else IGNORED_LABEL for token, weight in zip(answer_ids, scale, strict=True)]
            weights += [0.0] * (len(prompt_ids) - len(input_ids)) + scale
            input_ids, text = prompt_ids + answer_ids, full
        self._check_prompt(tokens[turns[-1].prompt], input_ids, labels)
        self._check_tools(chat, rendered.tools)
        self._check_texts(chat, text)
        images = tuple(images_of(chat))
        if self._on_prompt:
            # Tokens that stand for parts of an image are written by the processor, and not predicted.
            image_token = None if self.images is None else self.images.token_id
            labels = [IGNORED_LABEL if token == image_token else token for token in input_ids]
            return self._check_ids(Encoded(input_ids=input_ids, labels=labels, images=images))
        scale_of_labels = None if self._loss_scale is None else weights
        return self._check_ids(Encoded(input_ids=input_ids, labels=labels, weights=scale_of_labels, images=images))

    def _check_texts(self, chat: Sequence[Message], text: str) -> None:
        """Raise unless the chat that is trained on holds what its turns say.

        Templates drop the thinking of earlier answers on purpose. Some also drop that of the answer to be learned, a
        system prompt, or every text that is not a list of parts.
        """
        written = comparable_text(text)
        for index, message in enumerate(chat):
            content = message.get("content")
            texts = (
                [part["text"] for part in content if part["type"] == "text"] if isinstance(content, list) else [content]
            )
            is_learned = message["role"] != "system" and (index == len(chat) - 1 or self._all_rounds)
            if not (is_learned or message["role"] in self._written_roles):
                continue
            missing = [text for text in texts if isinstance(text, str) and comparable_text(text) not in written]
            if missing:
                raise WorkerError(
                    f"the chat template leaves out text of the {message['role']} turn {index + 1}: {missing[0][:60]!r}",
                    hint="set template_type to a template of the catalog that writes it, such as chatml, or take the "
                    "text out of the rows (of a system prompt: system: null)",
                )

    def _with_system(self, messages: Sequence[Message]) -> list[Message]:
        chat = list(messages)
        if self.system is not None and not (chat and chat[0]["role"] == "system"):
            chat.insert(0, {"role": "system", "content": self.system})
        return chat

    def _render(self, chat: Sequence[Message], tools: Tools = (), *, is_prompt: bool) -> str:
        images = list(images_of(chat))
        if self._chat_template is None:
            if images:
                raise WorkerError("images without a chat template, which alone says where they stand in a prompt")
            return render_plain(chat, is_prompt=is_prompt, eos=self.tokenizer.eos_token)
        chat_template = pin_date(pick_chat_template(self._chat_template, has_tools=bool(tools)))
        try:
            text = self.tokenizer.apply_chat_template(
                [self._for_template(message) for message in chat],
                tools=list(tools) or None,
                chat_template=chat_template,
                add_generation_prompt=is_prompt,
                tokenize=False,
            )
        except _RENDERING_ERRORS as error:
            roles = ", ".join(str(message["role"]) for message in chat)
            has_system = any(message["role"] == "system" for message in chat)
            raise TemplateRejectsError(
                f"the chat template rejects a chat with the roles {roles}: {error}",
                hint="where it takes no system turn set system: null and leave such turns out of the rows, or set "
                "template_type to a template of the catalog, such as chatml"
                if has_system
                else "change the rows, or set template_type to a template of the catalog, such as chatml",
            ) from error
        return str(text) if self.images is None else self.images.expand(str(text), images)

    def _for_template(self, message: Message) -> Message:
        """Return a message as chat templates read it: those of processors take contents as lists of parts."""
        found = {key: value for key, value in message.items() if key != MASKED}
        content = found.get("content")
        if self.images is not None and isinstance(content, str):
            found["content"] = [{"type": "text", "text": content}]
        elif isinstance(content, list):
            found["content"] = [part if part["type"] == "text" else {"type": "image"} for part in content]
        return found

    def _prompt_ids(self, chat: Sequence[Message], tools: Tools) -> list[int]:
        text = self._render(chat, tools, is_prompt=True)
        return self.tokenize([text])[text]

    def tokenize(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """Return the tokens of rendered chats.

        The plain fallback takes the tokenizer's own start token, a chat template writes its own.
        """
        unique = list(dict.fromkeys(texts))
        add_start = self._chat_template is None
        rows = self.tokenizer(unique, add_special_tokens=add_start)["input_ids"] if unique else []
        found = {text: list(ids) for text, ids in zip(unique, rows, strict=True)}
        if add_start:
            eos, eos_id = self.tokenizer.eos_token, self.tokenizer.eos_token_id
            for text, ids in found.items():
                # Some tokenizers add their end token too (add_eos_token).
                if ids and ids[-1] == eos_id and not text.endswith(eos):
                    ids.pop()
        return found

    def continue_ids(self, done_ids: list[int], done: str, full: str) -> list[int]:
        """Return the tokens of `full` that begin with `done_ids`, which are those of its beginning `done`."""
        return self._join(done_ids, done, full, self.tokenize([full])[full])

    def _join(self, done_ids: list[int], done: str, full: str, full_ids: list[int]) -> list[int]:
        """Return the tokens of `full` that begin with `done_ids`.

        The tokens of the whole text are taken where they agree; where a token would span the border (as it never does
        when a model generates), the rest is tokenized by itself.
        """
        if full_ids[: len(done_ids)] == done_ids:
            return full_ids
        return done_ids + list(self.tokenizer(full[len(done) :], add_special_tokens=False)["input_ids"])

    def _end_answer(self, answer_ids: list[int]) -> list[int]:
        """Cut what follows the answer's end token if it is only white space, and add an end token where none is."""
        for index in range(len(answer_ids) - 1, -1, -1):
            if self._is_special(answer_ids[index]):
                return answer_ids[: index + 1]
            if self.tokenizer.decode([answer_ids[index]]).strip():
                break
        return [*answer_ids, self.tokenizer.eos_token_id]

    def _is_special(self, token_id: int) -> bool:
        added = self.tokenizer.added_tokens_decoder.get(token_id)
        return token_id == self.tokenizer.eos_token_id or (added is not None and bool(added.special))

    def _check_starts_with(self, text: str, beginning: str) -> None:
        if not text.startswith(beginning):
            raise WorkerError(
                "the chat template writes a chat with its answer differently from the prompt for that answer, so "
                f"training would not see the evaluation's prompt: {beginning[-60:]!r} does not begin {text[-120:]!r}",
                hint="use another template_type, or loss_on_all_rounds: false if the earlier answers are rewritten",
            )

    def _check_prompt(self, prompt_ids: list[int], input_ids: list[int], labels: list[int]) -> None:
        """Raise unless the tokens before the last answer are those of the prompt for it."""
        num_prompt = len(prompt_ids)
        if input_ids[:num_prompt] != prompt_ids or labels[num_prompt - 1 : num_prompt] not in ([], [IGNORED_LABEL]):
            raise WorkerError(
                "the tokens before the answer are not those of the prompt for it, so training would not see the "
                "evaluation's prompt",
                hint="set loss_on_all_rounds: false",
            )

    def _check_tools(self, chat: Sequence[Message], tools: Tools) -> None:
        """Raise unless the chat template writes the tools and their calls; most templates know none."""
        called = any(message.get(CALLS) for message in chat)
        if not tools and not called:
            return
        text = self._render(chat, tools, is_prompt=False)
        if tools and self._is_rendering_of(chat, (), text):
            raise _writes_no("tools")
        silent = [{"content": "", **{key: part for key, part in each.items() if key != CALLS}} for each in chat]
        if called and self._is_rendering_of(silent, tools, text):
            raise _writes_no("tool calls")

    def _is_rendering_of(self, chat: Sequence[Message], tools: Tools, text: str) -> bool:
        try:
            return self._render(chat, tools, is_prompt=False) == text
        except TemplateRejectsError:
            return False

    def _weigh(
        self, message: Message, prompt: str, full: str, prompt_ids: list[int], answer_ids: list[int]
    ) -> list[float]:
        """Return the loss weight of each of the answer's tokens; a token weighs what its first character does."""
        masked = message.get(MASKED, ())
        if self._loss_scale is None and not masked:
            return [1.0] * len(answer_ids)
        answer = full[len(prompt) :]
        of_characters = [1.0] * len(answer) if self._loss_scale is None else self._loss_scale.weigh_characters(answer)
        end = 0
        for text in masked:
            start = answer.find(text, end)
            if start < 0:
                raise WorkerError(f"the chat template rewrites what a tool returned: {text[:60]!r} is missing")
            end = start + len(text)
            of_characters[start:end] = [0.0] * len(text)
        starts = self._find_starts(prompt, full, prompt_ids)
        weights = [of_characters[max(0, start)] if start < len(answer) else 1.0 for start in starts[: len(answer_ids)]]
        weights += [1.0] * (len(answer_ids) - len(weights))
        # The end of an answer is the model's own decision, whatever part it closes.
        return [1.0 if self._is_special(token) else weight for token, weight in zip(answer_ids, weights, strict=True)]

    def _find_starts(self, prompt: str, full: str, prompt_ids: list[int]) -> list[int]:
        if not self.tokenizer.is_fast:
            raise WorkerError("parts of answers cannot be weighed: only fast tokenizers return the offsets of tokens")
        add_start = self._chat_template is None
        joint = self.tokenizer(full, add_special_tokens=add_start, return_offsets_mapping=True)
        if list(joint["input_ids"][: len(prompt_ids)]) == prompt_ids:
            return [start - len(prompt) for start, _ in joint["offset_mapping"][len(prompt_ids) :]]
        rest = self.tokenizer(full[len(prompt) :], add_special_tokens=False, return_offsets_mapping=True)
        return [start for start, _ in rest["offset_mapping"]]

    def _check_ids(self, encoded: Encoded) -> Encoded:
        largest = max(encoded.input_ids, default=0)
        if self._num_embeddings is not None and largest >= self._num_embeddings:
            raise WorkerError(
                f"the token {self.tokenizer.convert_ids_to_tokens(largest)!r} has the id {largest}, and the model's "
                f"embedding has {self._num_embeddings} rows, for ids up to {self._num_embeddings - 1}",
                hint="take the token out of the data or the template, or add a row to the model and save it",
            )
        if self.images is not None and not encoded.images and self.images.token_id in encoded.input_ids:
            token = self.tokenizer.convert_ids_to_tokens(self.images.token_id)
            raise WorkerError(f"the text holds {token}, which stands for an image, and there is none")
        return encoded

    def _fit(self, encoded: Encoded) -> Encoded:
        if len(encoded.input_ids) <= self.max_length or self._truncation == "split":
            return encoded
        if self.drops_long:
            return Encoded(input_ids=[], labels=[], truncated=True)
        if encoded.images:
            raise WorkerError(
                f"{len(encoded.input_ids)} tokens with its images, more than max_length {self.max_length}, and an "
                "image cannot be cut",
                hint="raise max_length, set max_pixels lower, or leave such rows out: truncation_strategy: delete",
            )
        start = len(encoded.input_ids) - self.max_length
        return replace(encoded.part(start, len(encoded.input_ids)), truncated=True)

    def split(self, encoded: Encoded) -> tuple[Encoded, ...]:
        """Return the pieces of at most `max_length` tokens that a text is trained on in; most are one piece."""
        length = len(encoded.input_ids)
        if self._truncation != "split" or length <= self.max_length:
            return (encoded,)
        # A last token by itself has nothing before it to predict it by.
        starts = [start for start in range(0, length, self.max_length) if length - start > 1]
        return tuple(encoded.part(start, start + self.max_length) for start in starts)


def _writes_no(what: str) -> WorkerError:
    return WorkerError(
        f"the chat template does not write {what}, so they would be missing from the prompt",
        hint=NO_TOOLS_HINT,
    )
