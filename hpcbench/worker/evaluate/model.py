"""The model that lm-eval is given: with the training's prompts, a measured generation and reports of its progress.

In: a loaded model, its tokenizer, the training's template. Out: answers to lm-eval's requests, a filled meter, the
prompts that did not fit. It never loads weights and never scores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteriaList

from hpcbench.data.messages import Message
from hpcbench.errors import WorkerError
from hpcbench.worker.data.batches import pad_rows
from hpcbench.worker.data.rendered import AnswerEnds
from hpcbench.worker.data.templates import Template
from hpcbench.worker.evaluate.batch_size import LARGEST, ON_CPU, find_batch_size
from hpcbench.worker.evaluate.shared_run import in_order
from hpcbench.worker.measure.meter import GenerationMeter, GenerationWatch, read_clock
from hpcbench.worker.models import eos_token_ids
from hpcbench.worker.ranks import ALONE, Ranks

NUM_WARMUP_TOKENS = 2
DESCRIPTION_DELIMITER = "\n\n"
"""lm-eval's default between a description and the first question."""
_ANSWER = "x"

Pair = tuple[tuple[str, str], list[int], list[int]]
"""Prompt and answer as texts, then as tokens."""
BetweenBatches = Callable[[int, int], None]
"""Called with (requests done, requests known) before every batch; may raise to leave."""


class _DoneCounter:
    """Takes the place of lm-eval's response cache, which is called exactly once for every finished request."""

    def __init__(self) -> None:
        self.num_done = 0

    def add_partial(self, attr: str, req: object, res: object) -> None:  # noqa: ARG002
        self.num_done += 1


class CutPrompts:
    """The documents whose prompt lost its beginning, by task."""

    def __init__(self) -> None:
        self.documents: defaultdict[str, set[int]] = defaultdict(set)
        self.limits: dict[str, int] = {}

    def add(self, request: Instance, limit_tokens: int) -> None:
        """Note that the prompt of a request was cut to so many tokens."""
        task = str(request.task_name)
        self.documents[task].add(int(request.doc_id or 0))
        self.limits[task] = min(limit_tokens, self.limits.get(task, limit_tokens))

    def count(self, task: str) -> int:
        """Return how many documents of a task are concerned; a choice for each answer counts once."""
        return len(self.documents.get(task, ()))

    @classmethod
    def over(cls, parts: Sequence[CutPrompts]) -> CutPrompts:
        """Return what several ranks have cut."""
        merged = cls()
        for part in parts:
            for task, documents in part.documents.items():
                merged.documents[task] |= documents
                merged.limits[task] = min(part.limits[task], merged.limits.get(task, part.limits[task]))
        return merged

    def limit_tokens(self, task: str) -> int | None:
        """Return what prompts of a task were cut to."""
        return self.limits.get(task)


class EvalModel(HFLM):
    """lm-eval's Hugging Face model with the training's prompts and a meter."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        prompts: ChatPrompts | None,
        batch_size: int | Literal["auto"],
        max_length: int | None,
        between_batches: BetweenBatches,
        ranks: Ranks = ALONE,
    ) -> None:
        # lm-eval ties the head to the embedding, which fails where one of them was trained by itself.
        model.__dict__["tie_weights"] = lambda *_args, **_kwargs: None
        # A fixed number of rows: lm-eval's own `auto` tries full contexts, and other sizes in the course of a run.
        self._is_auto = batch_size == "auto"
        self._largest = LARGEST if batch_size == "auto" else batch_size
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=self._largest, max_length=max_length)
        self._ranks = ranks
        self._rank, self._world_size = ranks.rank, ranks.count
        self.prompts = prompts
        self._ends = None if prompts is None else prompts.answer_ends
        end_ids = () if self._ends is None else self._ends.token_ids
        self._eos_token_ids = tuple(dict.fromkeys((*eos_token_ids(model), *end_ids)))
        self.meter = GenerationMeter()
        self.cut_prompts = CutPrompts()
        self._scored: Sequence[Instance] = ()
        self._between_batches = between_batches
        self._num_expected = 0
        self._is_warm = self.device.type != "cuda"
        self._counter = _DoneCounter()
        self.set_cache_hook(self._counter)  # HFLM reports each finished request to it

    # Prompts

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:  # noqa: FBT001, FBT002
        """Render messages by the training's template; without generation prompt the last one starts the answer."""
        if self.prompts is None:
            return super().apply_chat_template(chat_history, add_generation_prompt)
        if add_generation_prompt:
            return self.prompts.render(chat_history)
        return self.prompts.render_started(chat_history[:-1], chat_history[-1]["content"])

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:  # noqa: FBT001
        """Return the tokens of a text; a rendered prompt's are the template's own."""
        # Not tokenized by lm-eval: special tokens and a BOS could differ from the training's.
        ids = None if self.prompts is None else self.prompts.ids_of(string)
        return super().tok_encode(string, add_special_tokens, **kwargs) if ids is None else ids

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,  # noqa: FBT001, FBT002
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens and attention mask, [B, P] each, left-padded; rendered prompts keep the template's tokens."""
        if self.prompts is None:
            return super().tok_batch_encode(strings, padding_side, left_truncate_len, truncation)
        rows = [self.tok_encode(text) for text in strings]
        if left_truncate_len:
            rows = [row[-left_truncate_len:] for row in rows]
        mask_BP = pad_rows([[1] * len(row) for row in rows], 0, side="left")  # noqa: N806
        return pad_rows(rows, self.tokenizer.pad_token_id, side="left"), mask_BP

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Encode prompt and answer as the training does."""
        # lm-eval moves the prompt's trailing whitespace, such as the line break after `<|im_start|>assistant`, into
        # the answer: that would score a template's token as if the model had to choose it.
        if self.prompts is None or self.prompts.ids_of(context) is None:
            return super()._encode_pair(context, continuation)
        return self.prompts.encode_pair(context, continuation)

    # Ranks

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return this rank's number for all: lm-eval evens out the ranks' requests by it, which nothing here needs."""
        return tensor.flatten().repeat(self.world_size)

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        """Return what all ranks have, in the order of documents, on rank `dst`."""
        gathered = self._ranks.gather(obj)
        return [in_order(gathered)] if self.rank == dst else None

    def barrier(self) -> None:
        """Wait for all ranks."""
        self._ranks.wait_for_all()

    def sum_over_ranks(self) -> None:
        """Have rank 0 count what all ranks generated and cut."""
        self.meter = GenerationMeter.over(self._ranks.gather(self.meter))
        self.cut_prompts = CutPrompts.over(self._ranks.gather(self.cut_prompts))

    # Batch size

    def _settle_batch_size(self, trial: Callable[[int], None]) -> None:
        """Settle `auto`; a later kind of request can only lower it."""
        if not self._is_auto:
            return
        found = find_batch_size(trial, largest=self._largest) if self.device.type == "cuda" else ON_CPU
        self._largest = self.batch_size_per_gpu = min(self._ranks.gather(found))

    def _try_scoring(self, length: int) -> Callable[[int], None]:
        def trial(size: int) -> None:
            with torch.no_grad():
                logits = self.model(torch.ones((size, length), dtype=torch.long, device=self.device)).logits
                torch.nn.functional.log_softmax(logits, dim=-1, dtype=self.softmax_dtype)

        return trial

    def _try_generating(self, length: int) -> Callable[[int], None]:
        def trial(size: int) -> None:
            ids = torch.ones((size, length - 1), dtype=torch.long, device=self.device)
            self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=1,
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id,
            )

        return trial

    # Requests

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:  # noqa: FBT001, FBT002
        """Score continuations."""
        self._num_expected += len(requests)
        self._scored = requests
        try:
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        finally:
            self._scored = ()

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:  # noqa: FBT001, FBT002
        """Score whole texts."""
        self._num_expected += len(requests)
        longest = max(len(self.tok_encode(request.args[0])) for request in requests)
        self._settle_batch_size(self._try_scoring(min(longest, self.max_length)))
        return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:  # noqa: FBT001, FBT002
        """Generate answers.

        Raises:
            WorkerError: an answer may be as long as the model's whole context, so no prompt would fit.
        """
        self._num_expected += len(requests)
        lengths = [normalize_gen_kwargs(request.args[1], self.max_gen_toks)["max_gen_toks"] for request in requests]
        longest = max(lengths)
        if longest >= self.max_length:
            raise WorkerError(
                f"answers of up to {longest} tokens leave no room for a prompt in a context of {self.max_length}",
                hint="set eval_args.gen_kwargs.max_gen_toks lower, or eval_args.max_length where the model allows more",
            )
        longest = 2
        for request, num_answer_tokens in zip(requests, lengths, strict=True):
            limit = self.max_length - num_answer_tokens
            num_prompt_tokens = len(self.tok_encode(request.args[0]))
            longest = max(longest, min(num_prompt_tokens, limit) + num_answer_tokens)
            if num_prompt_tokens > limit:
                self.cut_prompts.add(request, limit)
        self._settle_batch_size(self._try_generating(longest))
        if self._ends is not None and self._ends.text:
            requests = [_stopped_at(request, self._ends.text) for request in requests]
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def get_model_info(self) -> dict[str, Any]:
        """Return nothing: the record names the model already."""
        return {}  # HFLM's own queries the hub for a commit

    # Batches

    def _loglikelihood_tokens(
        self,
        requests: list[Pair],
        disable_tqdm: bool = False,  # noqa: FBT001, FBT002
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Score answers; prompts that do not fit beside their answer lose their beginning and are counted.

        Raises:
            WorkerError: an answer is empty, or longer than the whole context.
        """
        for request, (_, prompt_ids, answer_ids) in zip(self._scored, requests, strict=False):
            if not 0 < len(answer_ids) <= self.max_length:
                what = f"eval task {request.task_name!r}: document {request.doc_id}"
                size = (
                    f"of {len(answer_ids)} tokens in a context of {self.max_length}" if answer_ids else "without text"
                )
                raise WorkerError(
                    f"{what} has an answer {size}", hint="correct doc_to_choice or doc_to_target in the task file"
                )
            # The last token of an answer is only predicted, never read.
            limit = self.max_length + 1 - len(answer_ids)
            if len(prompt_ids) > limit:
                self.cut_prompts.add(request, limit)
        if override_bs is None:
            longest = max(len(prompt_ids) + len(answer_ids) - 1 for _, prompt_ids, answer_ids in requests)
            self._settle_batch_size(self._try_scoring(min(longest, self.max_length)))
        return super()._loglikelihood_tokens(requests, disable_tqdm=disable_tqdm, override_bs=override_bs)

    def _model_call(self, inps: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        self._between_batches(self._counter.num_done, self._num_expected)
        return super()._model_call(inps, **kwargs)

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **generation_kwargs: Any
    ) -> torch.Tensor:
        """Generate one batch and count it; the sampling rules are HFLM's (temperature 0 is greedy)."""
        self._between_batches(self._counter.num_done, self._num_expected)
        if generation_kwargs.get("temperature", 0.0) == 0.0 and not generation_kwargs.get("do_sample"):
            generation_kwargs |= {"do_sample": False}
            generation_kwargs.pop("temperature", None)  # transformers warns of it without do_sample
        mask_BP = generation_kwargs["attention_mask"]  # noqa: N806
        if not self._is_warm:
            self._warm_up(context, mask_BP)
        asked_ends = generation_kwargs.pop("eos_token_id", None)  # gen_kwargs may name other ends
        ends = self._eos_token_ids if asked_ends is None else _as_ids(asked_ends)
        watch = GenerationWatch(self.tokenizer, stop, context)
        output = self.model.generate(
            input_ids=context,
            max_length=max_length,
            stopping_criteria=StoppingCriteriaList([watch]),
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=list(ends) or None,
            use_cache=True,
            **generation_kwargs,
        )
        finished_s = read_clock(self.device)
        self.meter.add(
            row_tokens=watch.count_tokens(output, ends),
            num_prompt_tokens=int(mask_BP.sum()),
            time_s=finished_s - watch.started_s,
            prefill_time_s=(watch.first_token_s or finished_s) - watch.started_s,
        )
        return output

    def _warm_up(self, context: torch.Tensor, mask_BP: torch.Tensor) -> None:  # noqa: N803
        """Let a GPU load its kernels before the first measured batch."""
        self._is_warm = True
        self.model.generate(
            input_ids=context,
            attention_mask=mask_BP,
            max_new_tokens=NUM_WARMUP_TOKENS,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id,
        )


def _as_ids(ends: int | Sequence[int]) -> tuple[int, ...]:
    return (ends,) if isinstance(ends, int) else tuple(ends)


def _stopped_at(request: Instance, text: str) -> Instance:
    """Return a request whose answer ends at a text too."""
    prompt, options = request.args
    until = options.get("until") or []
    return replace(
        request, arguments=(prompt, {**options, "until": [*([until] if isinstance(until, str) else until), text]})
    )


class ChatPrompts:
    """Prompts rendered by the training's template, kept with their tokens.

    An eval task's `description` becomes the head of the first user message: as a system message, where lm-eval puts it,
    it would replace the system prompt of the training.
    """

    def __init__(self, template: Template) -> None:
        self._template = template
        self._ids_of: dict[str, list[int]] = {}
        self._started: set[str] = set()

    @property
    def answer_ends(self) -> AnswerEnds:
        """What ends an answer: the template's end too, where it is not the tokenizer's end token."""
        return self._template.answer_ends

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
        return self._template.continue_ids(self._ids_of[prompt], prompt, text)


def fold_description(messages: Sequence[Message]) -> list[Message]:
    """Move a system message (lm-eval's place for a description) to the head of the first user message."""
    if not messages or messages[0]["role"] != "system":
        return list(messages)
    description, (first, *others) = messages[0]["content"], messages[1:]
    touching = description[-1:].isspace() or first["content"][:1].isspace()
    content = description + ("" if touching else DESCRIPTION_DELIMITER) + first["content"]
    return [{"role": first["role"], "content": content}, *others]
