"""Larger collections than those of report_cases, with histories, samples and logs: a sweep, a table of tuners, odd names."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import replace
from itertools import product

from hpcbench.schemas.collection import Collection, ExperimentView, JobView, SuiteView
from hpcbench.schemas.history import History
from hpcbench.schemas.record import Attempt, Cause, Record, SampledMemory
from hpcbench.schemas.samples import Sample
from hpcbench.schemas.states import JobState
from tests.support.report_parts import A100, COLLECTED_AT, LORA, QWEN, eval_metrics, make_job, train_metrics

HOSTILE = "</script><img src=x onerror=alert(1)>|`$x_1$ & \"q\" 'z'"
TUNERS = (  # name, trainable parameters, memory in GiB, samples per second, eval loss, gsm8k, hours
    ("qwen-7b-chat-eval", 0, 0.0, 0.0, 0.0, 0.517, 1.1),
    ("lora+packing", 17.9, 28.1, 0.79, 0.95, 0.492, 42.3),
    ("lora+no_mix", 17.9, 30.9, 0.91, 0.53, 0.470, 14.7),
    ("dora", 19.3, 32.5, 0.51, 1.01, 0.466, 54.6),
    ("lora", 17.9, 32.4, 0.95, 1.01, 0.462, 29.0),
    ("lora+neftune", 17.9, 32.4, 0.96, 1.02, 0.456, 48.9),
    ("rslora", 17.9, 32.4, 0.94, 0.99, 0.451, 29.2),
    ("adapter", 33.8, 32.2, 1.48, 1.03, 0.438, 18.8),
    ("lora+", 17.9, 32.4, 0.95, 0.98, 0.432, 29.0),
    ("full+galore_emb", 7721.3, 44.5, 1.10, 1.00, 0.398, 25.0),
    ("full+galore64", 7721.3, 46.9, 1.11, 1.01, 0.397, 24.9),
    ("adalora", 26.8, 32.6, 0.92, 1.07, 0.391, 30.0),
    ("full+galore32", 7721.3, 47.1, 1.11, 1.01, 0.386, 24.8),
    ("full+galore128+quantize", 7721.3, 41.7, 1.46, 1.00, 0.371, 16.6),
    ("full+galore128", 7721.3, 47.0, 1.10, 1.00, 0.358, 24.9),
    ("full+lisa_2", 7721.3, 31.1, 2.66, 1.06, 0.349, 18.3),
    ("full", 7721.3, 73.5, 1.43, 0.95, 0.343, 19.3),
    ("full+no_mix", 7721.3, 72.6, 1.27, 0.44, 0.174, 8.2),
)
FAILED = (
    ("full-bs4", JobState.OUT_OF_MEMORY, "OutOfMemoryError", "CUDA out of memory. Tried to allocate 9.27 GiB. GPU 0 has a total capacity of 79.25 GiB"),
    ("llamapro", JobState.FAILED, "diverged", "losses are not finite since step 1760 of 5471"),
    ("llamapro-lr2", JobState.FAILED, "diverged", "losses are not finite since step 120 of 5471"),
    ("qlora4", JobState.TIMEOUT, "timeout", "the time limit of 480 min was reached at step 3120 of 5471, three times"),
    ("ia3", JobState.HOST_OUT_OF_MEMORY, "host_out_of_memory", "the node's memory was not enough (32 GB asked for)"),
)  # fmt: skip


class SyntheticArtifacts:
    """Histories that fall and level off, samples and logs, the same for the same job."""

    def __init__(self, *, num_steps: int = 600) -> None:
        self.num_steps = num_steps

    def history(self, job: JobView) -> History:
        """Return losses of a training that ran."""
        if job.job != "train" or job.state in {JobState.PENDING, JobState.PLANNED, JobState.BLOCKED}:
            return History()
        chance = random.Random(f"{job.suite}/{job.experiment}")
        floor, start, speed = 0.5 + chance.random() * 0.6, 2.5 + chance.random(), 20 + 80 * chance.random()
        steps = self.num_steps if job.state is JobState.COMPLETED else self.num_steps // 3

        def loss(step: int) -> float:
            return floor + (start - floor) * math.exp(-step / speed)

        train = {step: {"loss": loss(step) * (1 + 0.04 * (chance.random() - 0.5))} for step in range(1, steps + 1)}
        evals = {step: {"eval_loss": loss(step) * 1.05} for step in range(steps // 6, steps + 1, max(steps // 6, 1))}
        return History(train=train, evals=evals)

    def samples(self, job: JobView) -> Iterable[Sample]:  # noqa: ARG002 -- as all artifacts
        """Return ten documents, each third of which is answered wrong."""
        return [
            Sample(
                task="gsm8k", doc_id=number, doc_hash=f"{number:064x}", prompt=f"Question: what is {number} + {number}?\nAnswer:",
                target=f"#### {2 * number}", responses={"strict-match": f"It is #### {2 * number + (number % 3 == 0)}"},
                metrics={"exact_match,strict-match": float(number % 3 != 0)},
            )
            for number in range(10)
        ]  # fmt: skip

    def log_tail(self, job: JobView) -> tuple[str, ...]:
        """Return the end of a log."""
        if job.state in {JobState.PENDING, JobState.PLANNED, JobState.BLOCKED}:
            return ()
        return tuple(f"step {step}: loss {1 + 1 / step:.3f}" for step in (1720, 1730, 1740, 1750))


def tuners(suite: str = "tuners") -> Collection:
    """24 experiments with the figures of SWIFT 2.x's table: 18 done, five failed in four ways, one running."""
    views = [_tuner(suite, number) for number in range(len(TUNERS))]
    for name, state, kind, message in FAILED:
        cause = Cause(type=kind, message=message, exit_code=1, log="attempt-1/output.log", lines=(f"Error: {message}",))
        train = make_job(name, "train", suite=suite, args=QWEN | LORA, state=state, cause=cause, environment=A100)
        train = _with_attempts(train, hours=(4.0, 4.0, 4.0) if state is JobState.TIMEOUT else (2.0,))
        blocked = make_job(
            name,
            "eval-gsm8k",
            suite=suite,
            cmd="eval",
            args=QWEN,
            state=JobState.BLOCKED,
            reason="its train job failed",
        )
        views.append(ExperimentView(suite=suite, name=name, cmd="sft", main=train, evals=(blocked,)))
    running = make_job(
        "full+lisa_4", "train", suite=suite, args=QWEN, state=JobState.RUNNING,
        progress={"phase": "training", "step": 340, "max_steps": 1250, "loss": 1.21, "samples_per_second": 1.9},
    )  # fmt: skip
    views.append(ExperimentView(suite=suite, name="full+lisa_4", cmd="sft", main=running))
    return Collection(suites=(SuiteView(name=suite, experiments=tuple(views)),), collected_at=COLLECTED_AT)


def sweep(suite: str = "sweep", *, repeats: int = 3) -> Collection:
    """Rank x learning rate x batch size x dropout with repeats: 300 experiments with three, of which some failed."""
    views = []
    grid = product((4, 8, 16, 32, 64), (1e-5, 5e-5, 1e-4, 3e-4, 1e-3), (8, 16), (0.0, 0.1))
    for number, (rank, rate, batch, dropout) in enumerate(grid):
        base = f"r{rank}-lr{rate:g}-bs{batch}-do{dropout:g}"
        for repeat in range(repeats):
            settings = {
                "lora_rank": rank, "learning_rate": rate, "batch_size": batch, "lora_dropout_p": dropout, "seed": 42 + repeat,
            }  # fmt: skip
            views.append(_point(suite, base, number, repeat, settings))
    return Collection(suites=(SuiteView(name=suite, experiments=tuple(views)),), collected_at=COLLECTED_AT)


def hostile() -> Collection:
    """Names, causes and log lines that try to leave their place in a page, a table or a picture."""
    cause = Cause(
        type="exit_code", message=HOSTILE, exit_code=1, log="attempt-1/output.log", lines=(HOSTILE, "\x1b[31mred")
    )
    failed = make_job(
        "odd",
        "train",
        suite="hostile",
        args=QWEN | LORA,
        state=JobState.FAILED,
        cause=cause,
        environment={"host": HOSTILE, "cpu": HOSTILE},
    )
    views = [ExperimentView(suite="hostile", name=HOSTILE, cmd="sft", main=replace(failed, experiment=HOSTILE))]
    for number in range(3):
        view = _tuner("hostile", number + 1)
        views.append(_renamed(view, f"{HOSTILE}{number}"))
    return Collection(
        suites=(SuiteView(name="hostile", experiments=tuple(views)),), collected_at=COLLECTED_AT, warnings=(HOSTILE,)
    )


def _renamed(view: ExperimentView, name: str) -> ExperimentView:
    main = None if view.main is None else replace(view.main, experiment=name)
    return replace(view, name=name, main=main, evals=tuple(replace(job, experiment=name) for job in view.evals))


def _tuner(suite: str, number: int) -> ExperimentView:
    name, trainable, memory, speed, loss, score, hours = TUNERS[number]
    found = eval_metrics(
        "gsm8k", "exact_match,strict-match", score, stderr=0.0137, num_samples=1319, num_fewshot=4, infer=(2415, 133.32),
        baseline=not trainable,
    )  # fmt: skip
    args = QWEN | (LORA if "full" not in name else {"sft_type": "full"})
    evaluated = make_job(name, "eval-gsm8k", suite=suite, cmd="eval", args=args, metrics=found, environment=A100)
    if not trainable:
        return ExperimentView(suite=suite, name=name, cmd="eval", evals=(_with_attempts(evaluated, hours=(hours,)),))
    metrics = train_metrics(
        trainable=int(trainable * 1e6), total=7_739_215_872, train_loss=loss * 0.6, eval_loss=loss, num_samples=175_086,
        train_time_s=175_086 / speed, reserved_gib=(memory,), mfu=0.3,
    )  # fmt: skip
    sampled = SampledMemory(gpu_peak_gib=(memory + 1,), gpu_energy_wh=hours * 300, host_rss_peak_gib=12.5)
    train = make_job(name, "train", suite=suite, args=args, metrics=metrics, environment=A100, sampled=sampled)
    evaluated = _with_attempts(evaluated, hours=(0.7,), start=8 + hours + 1.5)
    # One of them was preempted once, and went on on another machine with another driver.
    train = _with_attempts(train, hours=(hours / 3, 2 * hours / 3) if name == "dora" else (hours,))
    return ExperimentView(suite=suite, name=name, cmd="sft", main=train, evals=(evaluated,))


def _with_attempts(job: JobView, *, hours: tuple[float, ...], start: float = 8.0) -> JobView:
    record = job.record
    assert record is not None
    attempts, submitted_at = [], _moment(start - 2.25)
    for number, length in enumerate(hours, 1):
        state = record.state if number == len(hours) else JobState.PREEMPTED
        cause = (
            Cause(type="preempted", message="preempted by a job of higher priority")
            if number < len(hours)
            else record.cause
        )
        attempts.append(
            Attempt(
                number=number,
                state=state,
                started_at=_moment(start),
                finished_at=_moment(start + length),
                duration_s=length * 3600,
                scheduler_id="4711_0",
                host=f"gpu-0{number}",
                cause=cause,
                sampled=record.attempts[-1].sampled,
            )
        )
        start += length + 0.7
    changed: Record = record.model_copy(update={"attempts": tuple(attempts)})
    if len(hours) > 1:
        gpus = A100["gpus"] | {"driver": "580.65.06"}
        changed = changed.model_copy(update={"environment": A100 | {"gpus": gpus, "host": "gpu-02"}})
    return replace(job, record=changed, submitted_at=submitted_at)


def _moment(hours: float) -> str:
    days, rest = divmod(hours, 24)
    minutes, seconds = divmod(round((rest % 1) * 3600), 60)
    return f"2026-06-{10 + int(days):02d}T{int(rest):02d}:{min(minutes, 59):02d}:{seconds:02d}+00:00"


def _point(suite: str, base: str, number: int, repeat: int, settings: dict[str, float]) -> ExperimentView:
    chance = random.Random(f"{base}/{repeat}")
    name = f"{base}-seed{repeat}"
    args = QWEN | LORA | settings
    rank, rate = settings["lora_rank"], settings["learning_rate"]
    if rank == 64 and settings["batch_size"] == 16:
        cause = Cause(type="OutOfMemoryError", message="CUDA out of memory. Tried to allocate 2.00 GiB", exit_code=1)
        train = make_job(
            name, "train", suite=suite, args=args, state=JobState.OUT_OF_MEMORY, cause=cause, environment=A100
        )
        return ExperimentView(suite=suite, name=name, base_experiment=base, cmd="sft", main=train)
    if rate == 1e-3 and (number + repeat) % 3 == 0:
        message = f"losses are not finite since step {50 + 7 * repeat + number}"
        cause = Cause(type="diverged", message=message, exit_code=1)
        train = make_job(name, "train", suite=suite, args=args, state=JobState.FAILED, cause=cause, environment=A100)
        return ExperimentView(suite=suite, name=name, base_experiment=base, cmd="sft", main=train)
    distance = abs(math.log10(rate) - math.log10(3e-4)) + abs(math.log2(rank) - 5) / 8
    score = 0.68 - 0.11 * distance - 0.1 * settings["lora_dropout_p"] + 0.012 * (chance.random() - 0.5)
    memory = 14 + rank / 10 + settings["batch_size"] * 0.6
    metrics = train_metrics(
        trainable=int(rank * 2.2e6), total=7_739_215_872, train_loss=0.9 + distance / 4, eval_loss=1.0 + distance / 3,
        num_samples=20_000, train_time_s=20_000 / (6.5 - rank / 40 - settings["batch_size"] / 30 + 0.1 * chance.random()),
        reserved_gib=(memory,),
    )  # fmt: skip
    found = eval_metrics("gsm8k", "exact_match,strict-match", score, stderr=0.0129, num_samples=1319, num_fewshot=4)
    train = make_job(name, "train", suite=suite, args=args, metrics=metrics, environment=A100)
    evaluated = make_job(name, "eval-gsm8k", suite=suite, cmd="eval", args=args, metrics=found, environment=A100)
    return ExperimentView(suite=suite, name=name, base_experiment=base, cmd="sft", main=train, evals=(evaluated,))
