"""One infer job: load what answers, answer the prompts that have no answer yet, write what came out.

In: a job request with cmd `infer`. Out: `results.jsonl` and `generation_config.json` in the job's folder, and in the
attempt's `metrics.json`, or `interrupted.json` when the supervisor asked to stop. It writes no record and catches no
failure.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from hpcbench.schemas import variables
from hpcbench.schemas.metrics import InferMetrics
from hpcbench.schemas.notes import Interrupted
from hpcbench.schemas.request import JobRequest
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import AttemptPaths, JobPaths
from hpcbench.worker.data.templates import NO_SYSTEM
from hpcbench.worker.infer import figures
from hpcbench.worker.infer.engine import Answer, Engine, EngineFacts, GenerationOptions
from hpcbench.worker.infer.model import Answering, find_answering, load_answering
from hpcbench.worker.infer.prompts import Question, Questions, load_prompts
from hpcbench.worker.infer.results import ResultRow, append_results, restore_results
from hpcbench.worker.placing import check_claim
from hpcbench.worker.progress_file import Progress
from hpcbench.worker.signals import stop_requested

logger = logging.getLogger(__name__)

Batch = Sequence[Question]


def run(request: JobRequest, job: JobPaths, attempt: AttemptPaths) -> None:
    """Answer the prompts of one job and write the attempt's metrics.

    Raises:
        WorkerError: the request cannot be carried out here: no checkpoint, no data, a library that is missing.
    """
    progress = Progress(job)
    progress.update("loading")
    answering = find_answering(request)
    asked = load_prompts(answering.args, answering.infer, answering.template, num_positions=answering.num_positions)
    options = GenerationOptions.from_args(answering.args)
    engine = open_engine(answering, options, job)
    if answering.infer.save_generation_config:
        write_json(job.generation_config, options.as_config())
    rows = restore_results(job.results)
    started_s = time.perf_counter()
    for number, batch in _open_batches(asked.questions, answering.infer.max_batch_size, rows):
        progress.update("answering", done=len(rows), total=len(asked.questions))
        if stop_requested(attempt):
            logger.info("asked to stop; the next attempt goes on behind %d answers", len(rows))
            Interrupted(phase="answering").write(attempt.interrupted)
            return
        # The whole batch, also where some of its rows are there: an answer may depend on the padding beside it.
        answers = engine.answer([question.prompt for question in batch])
        new = [
            _make_row(question, answer, number, answering.tokenizer)
            for question, answer in zip(batch, answers, strict=True)
            if question.prompt.index not in rows
        ]
        check_claim(job, os.environ.get(variables.CLAIM), what="answers")
        append_results(job.results, new)
        rows |= {row.index: row for row in new}
    metrics = measure(
        asked,
        [rows[question.prompt.index] for question in asked.questions],
        answering,
        engine.describe(),
        infer_time_s=time.perf_counter() - started_s,
        merged=str(job.answered_merged.relative_to(job.folder)) if job.answered_merged.is_dir() else None,
        results=job.results.name if answering.infer.save_result else None,
    )
    write_json(attempt.metrics, metrics.model_dump(mode="json"))
    if not answering.infer.save_result:
        # Until here they were what a killed job goes on from.
        job.results.unlink(missing_ok=True)


def open_engine(answering: Answering, options: GenerationOptions, job: JobPaths | None = None) -> Engine:
    """Return the loaded engine that the arguments name.

    Raises:
        WorkerError: it cannot be loaded.
    """
    if answering.infer.infer_backend == "vllm":
        from hpcbench.worker.infer.vllm_engine import VllmEngine

        return VllmEngine(answering, options)
    from hpcbench.worker.infer.transformers_engine import TransformersEngine

    return TransformersEngine(
        load_answering(answering, job),
        answering.tokenizer,
        ends=answering.template.answer_ends,
        options=options,
        num_positions=answering.num_positions,
        num_gpus=answering.num_gpus,
    )


def measure(
    asked: Questions,
    rows: Sequence[ResultRow],
    answering: Answering,
    facts: EngineFacts,
    *,
    infer_time_s: float,
    merged: str | None,
    results: str | None,
) -> InferMetrics:
    """Return the figures of all rows, with what answered and why figures are missing."""
    num_labels = sum(row.label is not None for row in rows)
    speed = figures.infer_speed(rows, batch_size=answering.infer.max_batch_size)
    unlabeled = "no row has an answer of its own to compare with"
    reasons = {
        "infer": (speed, "no token was generated"),
        "rouge_l": (num_labels or None, unlabeled),
        "exact_match": (num_labels or None, unlabeled),
        "parameters": (facts.parameters, f"{facts.backend} does not tell"),
        "memory": (facts.memory or None, f"{facts.backend} does not tell"),
        "results": (results, "save_result: false"),
    }
    deviations = {}
    if not answering.template.takes_system:
        if answering.args.system is not None:
            deviations["system"] = NO_SYSTEM
        if asked.num_with_system:
            deviations["dataset"] = f"{NO_SYSTEM}, which {asked.num_with_system} of {len(rows)} rows have"
    return InferMetrics(
        num_rows=len(rows),
        num_labels=num_labels,
        num_prompts_cut=asked.num_cut,
        num_rows_left_out=asked.num_left_out,
        num_ended_by_length=sum(row.finish == "length" for row in rows),
        infer=speed,
        latency=figures.latency(row.seconds for row in rows),
        first_token_latency=figures.latency(row.first_token_seconds for row in rows),
        rouge_l=figures.mean_rouge(rows),
        exact_match=figures.exact_match(rows),
        results=results,
        merged_model=merged,
        checkpoint=None if answering.folder is None else str(answering.folder),
        checkpoint_choice=answering.choice,
        backend=facts.backend,
        memory=facts.memory,
        parameters=facts.parameters,
        dtypes=facts.dtypes,
        attention=facts.attention,
        template=answering.template.description,
        infer_time_s=infer_time_s,
        unknown={name: reason for name, (value, reason) in reasons.items() if value is None},
        deviations=deviations,
    )


def _open_batches(questions: Sequence[Question], size: int, rows: dict[int, ResultRow]) -> Iterator[tuple[int, Batch]]:
    """Yield number and prompts of each batch that lacks an answer; what is in a batch never depends on what is done."""
    for number, start in enumerate(range(0, len(questions), size)):
        batch = questions[start : start + size]
        if any(question.prompt.index not in rows for question in batch):
            yield number, batch


def _make_row(question: Question, answer: Answer, batch: int, tokenizer: Any) -> ResultRow:
    ids = question.prompt.input_ids
    return ResultRow(
        index=question.prompt.index,
        place=question.place,
        prompt=str(tokenizer.decode(ids)),
        response=answer.text,
        label=question.label,
        finish=answer.finish,
        prompt_tokens=len(ids),
        tokens=len(answer.token_ids),
        first_token_seconds=answer.first_token_s,
        seconds=answer.time_s,
        batch=batch,
    )
