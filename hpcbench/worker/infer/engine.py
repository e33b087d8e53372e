"""What answers prompts: the interface of the engines, and what goes in and comes out.

In: prompts as token ids. Out: answers with their times. An engine keeps nothing between two batches, so that a job that
was killed gives the same answers as one that was not. No torch here: engines live in files of their own.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.metrics import Parameters, RankMemory
from hpcbench.worker.data.rendered import AnswerEnds

Finish = Literal["stop", "length"]
"""Why an answer ended: by itself, or because it may not be longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """How answers are generated."""

    max_new_tokens: int
    do_sample: bool
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    seed: int
    num_beams: int = 1
    stop_words: tuple[str, ...] = ()

    @classmethod
    def from_args(cls, args: SftArgs) -> GenerationOptions:
        """Return the generation part of the arguments."""
        return cls(
            max_new_tokens=args.max_new_tokens,
            do_sample=args.samples_answers,
            temperature=args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
            repetition_penalty=args.repetition_penalty,
            seed=args.seed,
            num_beams=args.num_beams,
            stop_words=args.stop_words,
        )

    def as_config(self) -> dict[str, object]:
        """Return the values as transformers' generation_config.json names them; sampling ones only where they count."""
        values: dict[str, object] = {
            "max_new_tokens": self.max_new_tokens,
            "do_sample": self.do_sample,
            "repetition_penalty": self.repetition_penalty,
            "num_beams": self.num_beams,
        }
        if self.do_sample:
            values |= {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
        if self.stop_words:
            values["stop_strings"] = list(self.stop_words)
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt."""

    index: int
    """Place among the prompts of the job, which with the seed decides all that is drawn for its answer."""
    input_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer."""

    text: str
    """Without special tokens, and without what ended it."""
    token_ids: tuple[int, ...]
    """What was generated, the end included."""
    finish: Finish
    first_token_s: float
    """From the start of its batch to its first token."""
    time_s: float
    """From the start of its batch to its last token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What an engine reports for the record; None is what it cannot know."""

    backend: str
    """Library and version."""
    parameters: Parameters | None = None
    memory: tuple[RankMemory, ...] = ()
    dtypes: dict[str, str]
    attention: str | None = None


class Engine(Protocol):
    """A loaded model that answers."""

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Return an answer to each prompt of a batch, in order."""
        ...

    def describe(self) -> EngineFacts:
        """Return what it is, with the peak memory so far."""
        ...


def random_of(seed: int, index: int) -> random.Random:
    """Return the random numbers of one prompt's answer: the same whatever was answered before it, or beside it."""
    return random.Random(f"{seed}/{index}")  # noqa: S311  # no secret


def trim(text: str, ends: AnswerEnds, stop: Sequence[str]) -> str:
    """Return an answer without the template's end and without the first stop word and what follows it."""
    text = ends.cut(text)
    places = [place for word in stop if (place := text.find(word)) >= 0]
    return text[: min(places)] if places else text
