"""The answers that a model in training gives to the validation prompts (`predict_with_generate`), and their ROUGE-L.

In: a model, prompts with their reference answers, the generation arguments. Out: answers with their scores. The random
numbers of the training stay as they were, and those drawn here depend on the seed and the step alone: a resume changes
nothing.

ROUGE-L is the F-measure of the longest common subsequence of words (Lin 2004, https://aclanthology.org/W04-1013). Words
are runs of letters and digits in lower case, as in the rouge-score package without stemming; of Chinese, Japanese and
Korean each character is a word, which that package drops.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hpcbench.data.images import ImageSource, images_of
from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.data.batches import pad_rows
from hpcbench.worker.data.images import ImageInputs
from hpcbench.worker.data.rendered import AnswerEnds
from hpcbench.worker.data.samples import Sample
from hpcbench.worker.data.templates import Template
from hpcbench.worker.models import eos_token_ids, inference
from hpcbench.worker.ranks import ALONE, Ranks

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORDS = re.compile(rf"[{_CJK}]|(?:(?![{_CJK}])[^\W_])+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One validation prompt."""

    input_ids: tuple[int, ...]
    reference: str
    images: tuple[ImageSource, ...] = ()
    """Pictures whose tokens are among the ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One generated answer; as JSON a line of the file that a training leaves."""

    prompt: str
    """With its special tokens."""
    reference: str
    answer: str
    rouge_l: float


def make_prompts(samples: Sequence[Sample], template: Template, *, max_length: int) -> tuple[Prompt, ...]:
    """Return the prompts for the last answers, each with its last `max_length` tokens; plain text has none.

    Raises:
        WorkerError: a prompt with images is longer, and an image cannot be cut.
    """
    return tuple(_make_prompt(sample, template, max_length) for sample in samples if sample.text is None)


def _make_prompt(sample: Sample, template: Template, max_length: int) -> Prompt:
    ids = template.prefix_ids(sample.messages[:-1], tools=sample.tools)
    images = tuple(images_of(sample.messages))
    if images and len(ids) > max_length:
        raise WorkerError(
            f"{sample.place}: {len(ids)} tokens with its images, more than max_length {max_length}",
            hint="raise max_length, or set max_pixels lower",
        )
    reference = str(sample.messages[-1].get("content") or "")
    return Prompt(input_ids=tuple(ids[-max_length:]), reference=reference, images=images)


def mean_rouge_l(predictions: Sequence[Prediction]) -> float:
    """Return the mean score (0 to 1) of at least one answer."""
    return sum(prediction.rouge_l for prediction in predictions) / len(predictions)


def predict(
    model: Any,
    prompts: Sequence[Prompt],
    tokenizer: Any,
    args: SftArgs,
    *,
    ends: AnswerEnds,
    images: ImageInputs | None = None,
    step: int,
    device: torch.device,
    ranks: Ranks = ALONE,
    on_batch: Callable[[], None] = lambda: None,
) -> list[Prediction]:
    """Return the answers to prompts that the ranks share, in order, on every rank."""
    share = prompts[ranks.rank :: ranks.count]
    size = args.eval_batch_size or 1
    own: list[Prediction] = []
    # generate draws from torch's global generators, as the training's dropout does.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), inference(model):
        torch.manual_seed(args.seed + 1_000_003 * step + ranks.rank)
        for start in range(0, len(share), size):
            on_batch()  # may raise to leave early where there is one rank
            batch = share[start : start + size]
            answers = _generate(model, batch, tokenizer, args, ends=ends, images=images, device=device)
            own += [
                Prediction(
                    prompt=str(tokenizer.decode(row.input_ids)),
                    reference=row.reference,
                    answer=answer,
                    rouge_l=rouge_l(answer, row.reference),
                )
                for answer, row in zip(answers, batch, strict=True)
            ]
    shares = ranks.gather(own)
    return [shares[index % ranks.count][index // ranks.count] for index in range(len(prompts))]


def _generate(
    model: Any,
    batch: Sequence[Prompt],
    tokenizer: Any,
    args: SftArgs,
    *,
    ends: AnswerEnds,
    images: ImageInputs | None,
    device: torch.device,
) -> list[str]:
    # generate continues each row at its right end.
    input_ids = pad_rows([prompt.input_ids for prompt in batch], tokenizer.pad_token_id, side="left")
    attention_mask = pad_rows([[1] * len(prompt.input_ids) for prompt in batch], 0, side="left")
    pixels = {} if images is None else images.make_batch(batch, input_ids)
    # Without do_sample transformers warns of each of these.
    sampling: dict[str, Any] = (
        {"temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p} if args.samples_answers else {}
    )
    if stops := [text for text in (ends.text, *args.stop_words) if text]:
        sampling |= {"stop_strings": stops, "tokenizer": tokenizer}
    output = model.generate(
        input_ids=input_ids.to(device),
        attention_mask=attention_mask.to(device),
        **{name: tensor.to(device) for name, tensor in pixels.items()},
        max_new_tokens=args.max_new_tokens,
        do_sample=args.samples_answers,
        num_beams=args.num_beams,
        repetition_penalty=args.repetition_penalty,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=[*dict.fromkeys((*ends.token_ids, *eos_token_ids(model)))],
        use_cache=True,
        **sampling,
    )
    texts = tokenizer.batch_decode(output[:, input_ids.shape[1] :], skip_special_tokens=True)
    return [cut_answer(ends.cut(str(text)), args.stop_words) for text in texts]


def cut_answer(answer: str, stop_words: Iterable[str]) -> str:
    """Return the answer up to the first of the words that end it."""
    return answer[: min((at for word in stop_words if (at := answer.find(word)) >= 0), default=len(answer))]


def rouge_l(prediction: str, reference: str) -> float:
    """Return the F-measure of the longest common subsequence of words; 0 where one of the texts has none."""
    predicted, wanted = split_words(prediction), split_words(reference)
    common = _common_length(predicted, wanted)
    if common == 0:
        return 0.0
    precision, recall = common / len(predicted), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def split_words(text: str) -> list[str]:
    """Return the words of a text."""
    return _WORDS.findall(text.lower())


def _common_length(first: list[str], second: list[str]) -> int:
    """Return the length of the longest common subsequence, in time first x second and memory second."""
    above = [0] * (len(second) + 1)
    for word in first:
        row = [0]
        for index, other in enumerate(second):
            row.append(above[index] + 1 if word == other else max(above[index + 1], row[index]))
        above = row
    return above[-1]
