"""The engine of `infer_backend: pt`: transformers' generate, batch by batch.

In: a loaded model, its tokenizer and template. Out: answers, token by token the same as `generate` gives. It never
loads weights, and reads no data.

Shapes: B rows of a batch, P prompt tokens (left-padded), G generated tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from hpcbench.schemas.metrics import Parameters
from hpcbench.worker.data.batches import pad_rows
from hpcbench.worker.data.rendered import AnswerEnds
from hpcbench.worker.infer.engine import Answer, EngineFacts, Finish, GenerationOptions, Prompt, random_of, trim
from hpcbench.worker.infer.sampling import RowSampler
from hpcbench.worker.measure.meter import GenerationWatch, measure_memory, read_clock
from hpcbench.worker.models import eos_token_ids, inference
from hpcbench.worker.models.quantization import find_dtypes, logical_size

OnTokens = Callable[[Sequence[int]], None]
"""Called with all tokens of the first row so far, after each step; may raise to leave."""


class RowWatch(GenerationWatch):
    """Note when each row ended, at an end token, a stop word or the model's last position."""

    def __init__(
        self,
        tokenizer: Any,
        stop: Sequence[str],
        prompt_BP: torch.Tensor,  # noqa: N803
        *,
        end_ids: Sequence[int],
        room: Sequence[int | None],
        on_tokens: OnTokens | None,
    ) -> None:
        super().__init__(tokenizer, stop, prompt_BP)
        self._end_ids = frozenset(end_ids)
        self._room = room
        self._on_tokens = on_tokens
        self.ended_at_s: list[float | None] = [None] * self.num_rows
        self.cut_rows: set[int] = set()
        """Rows that the model's last position ended."""

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Return which rows are done, as a boolean tensor [B]."""
        super().__call__(input_ids, scores, **kwargs)
        num_generated = input_ids.shape[1] - self.prompt_length
        now_s = read_clock(self.device)
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if self.ended_at_s[row] is not None:
                continue
            room = self._room[row]
            if room is not None and num_generated >= room and self.stopped_at[row] is None:
                self.stopped_at[row] = num_generated
                self.cut_rows.add(row)
            if self.stopped_at[row] is not None or token in self._end_ids:
                self.ended_at_s[row] = now_s
        if self._on_tokens is not None:
            self._on_tokens(input_ids[0, self.prompt_length :].tolist())
        return torch.tensor([ended is not None for ended in self.ended_at_s], device=self.device)


class FirstTokenWatch(StoppingCriteria):
    """Note when the first token was there, whatever a search follows, and stop nothing."""

    def __init__(self, device: torch.device) -> None:
        self.started_s = read_clock(device)
        self.first_token_s: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ARG002
        """Return that no row is done; a search of beams asks for more rows than the batch has."""
        if self.first_token_s is None:
            self.first_token_s = read_clock(input_ids.device)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


class TransformersEngine:
    """A model of transformers that answers."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        ends: AnswerEnds,
        options: GenerationOptions,
        num_positions: int | None = None,
        num_gpus: int = 1,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._ends = ends
        self._options = options
        self._end_ids = tuple(dict.fromkeys((*ends.token_ids, *eos_token_ids(model))))
        self._num_positions = num_positions
        self._num_gpus = num_gpus

    def answer(self, prompts: Sequence[Prompt], *, on_tokens: OnTokens | None = None) -> list[Answer]:
        """Return an answer to each prompt of a batch, in order; `on_tokens` follows the first one."""
        device = self._model.device
        # generate continues each row at its right end.
        input_ids = pad_rows([prompt.input_ids for prompt in prompts], self._tokenizer.pad_token_id, side="left")
        mask = pad_rows([[1] * len(prompt.input_ids) for prompt in prompts], 0, side="left")
        input_ids, mask = input_ids.to(device), mask.to(device)
        if self._options.num_beams > 1:
            return self._search_beams(input_ids, mask, prompts)
        watch = RowWatch(
            self._tokenizer,
            [*self._options.stop_words, self._ends.text],
            input_ids,
            end_ids=self._end_ids,
            room=[self._room_behind(prompt) for prompt in prompts],
            on_tokens=on_tokens,
        )
        with inference(self._model):
            output = self._generate(input_ids, mask, prompts, [watch])
        finished_s = read_clock(device)
        counts = watch.count_tokens(output, self._end_ids)
        return [
            self._make_answer(
                output[row, watch.prompt_length :][: counts[row]].tolist(),
                is_over=watch.ended_at_s[row] is not None and row not in watch.cut_rows,
                first_token_s=(watch.first_token_s or finished_s) - watch.started_s,
                time_s=(watch.ended_at_s[row] or finished_s) - watch.started_s,
            )
            for row in range(len(prompts))
        ]

    def describe(self) -> EngineFacts:
        """Return what runs, with the peak memory so far."""
        total = sum(map(logical_size, self._model.parameters()))
        return EngineFacts(
            backend=f"transformers {transformers.__version__}",
            parameters=Parameters(trainable=0, total=total),
            memory=measure_memory(self._model.device, num_gpus=self._num_gpus),
            dtypes=find_dtypes(self._model),
            attention=getattr(self._model.config, "_attn_implementation", None),
        )

    def _room_behind(self, prompt: Prompt) -> int | None:
        """Return how many tokens fit behind a prompt into the model's table of positions, None without one."""
        return None if self._num_positions is None else max(1, self._num_positions - len(prompt.input_ids))

    def _generate(
        self, input_ids: torch.Tensor, mask: torch.Tensor, prompts: Sequence[Prompt], watches: list[RowWatch]
    ) -> torch.Tensor:
        options = self._options
        processors = LogitsProcessorList()
        if options.do_sample:
            draws = [random_of(options.seed, prompt.index) for prompt in prompts]
            processors.append(RowSampler(draws, options))
        output: torch.Tensor = self._model.generate(
            input_ids=input_ids,
            attention_mask=mask,
            max_new_tokens=options.max_new_tokens,
            do_sample=False,  # RowSampler leaves one token, and the likeliest is taken
            repetition_penalty=options.repetition_penalty,
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList(watches),
            pad_token_id=self._tokenizer.pad_token_id,
            eos_token_id=list(self._end_ids),
            use_cache=True,
        )
        return output

    def _search_beams(self, input_ids: torch.Tensor, mask: torch.Tensor, prompts: Sequence[Prompt]) -> list[Answer]:
        """Return the best of num_beams answers to each prompt; all rows end when the last does."""
        options, pad_id = self._options, self._tokenizer.pad_token_id
        stop = [word for word in (*options.stop_words, self._ends.text) if word]
        rooms = [room for room in map(self._room_behind, prompts) if room is not None]
        longest = min([options.max_new_tokens, *rooms])
        watch = FirstTokenWatch(self._model.device)
        with inference(self._model):
            output = self._model.generate(
                input_ids=input_ids,
                attention_mask=mask,
                max_new_tokens=longest,
                do_sample=False,
                num_beams=options.num_beams,
                repetition_penalty=options.repetition_penalty,
                stopping_criteria=StoppingCriteriaList([watch]),
                pad_token_id=pad_id,
                eos_token_id=list(self._end_ids),
                use_cache=True,
                **({"stop_strings": stop, "tokenizer": self._tokenizer} if stop else {}),
            )
        finished_s = read_clock(self._model.device)
        answers = []
        for row in output[:, input_ids.shape[1] :].tolist():
            end = next((place + 1 for place, token in enumerate(row) if token in self._end_ids), len(row))
            ids = row[:end]
            while ids and ids[-1] == pad_id and pad_id not in self._end_ids:
                ids.pop()
            answers.append(
                self._make_answer(
                    ids,
                    is_over=len(ids) < longest or ids[-1] in self._end_ids,
                    first_token_s=(watch.first_token_s or finished_s) - watch.started_s,
                    time_s=finished_s - watch.started_s,
                )
            )
        return answers

    def _make_answer(self, ids: Sequence[int], *, is_over: bool, first_token_s: float, time_s: float) -> Answer:
        text = str(self._tokenizer.decode(ids, skip_special_tokens=True))
        finish: Finish = "stop" if is_over else "length"
        return Answer(
            text=trim(text, self._ends, self._options.stop_words),
            token_ids=tuple(ids),
            finish=finish,
            first_token_s=first_token_s,
            time_s=time_s,
        )
