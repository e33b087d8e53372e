"""The benchmark tables of SWIFT 2.x as experiments: each row's figures parsed, and put where a job's record has them.

In: tables in Markdown or HTML. Out: their cells, and collections from which a report can make the same tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any

from hpcbench.schemas.collection import ExperimentView, JobView
from hpcbench.schemas.metrics import EvalMetrics, Parameters, RankMemory, TokenStats, TrainMetrics
from hpcbench.schemas.record import Cause
from hpcbench.schemas.states import JobState
from tests.support.report_parts import A100, eval_metrics, make_job

SUITE = "benchmark"
_TOTAL_PARAMETERS = 7_721_324_544
_MINUTE_S, _HOUR_S = 60, 3600


@dataclass(slots=True)
class Grid:
    """A table: its cells, those of spanning cells in each row that they cover, and where the spans begin."""

    rows: list[list[str]] = field(default_factory=list)
    spans: dict[tuple[int, int], int] = field(default_factory=dict)
    """Row and column of a spanning cell, and the rows that it covers."""

    @property
    def header(self) -> list[str]:
        """The texts of the first row."""
        return self.rows[0]

    def records(self) -> list[dict[str, str]]:
        """Return each further row by the table's headers."""
        return [dict(zip(self.header, row, strict=True)) for row in self.rows[1:]]


class _TableParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[Grid] = []
        self._covered: dict[tuple[int, int], str] = {}
        self._text: list[str] | None = None
        self._span = 1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.found.append(Grid())
            self._covered = {}
        elif tag == "tr":
            self.found[-1].rows.append([])
            self._take_covered()
        elif tag in {"td", "th"}:
            self._text, self._span = [], int(dict(attrs).get("rowspan") or 1)

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag not in {"td", "th"} or self._text is None:
            return
        grid = self.found[-1]
        row, column = len(grid.rows) - 1, len(grid.rows[-1])
        text = " ".join("".join(self._text).split())
        grid.rows[-1].append(text)
        if self._span > 1:
            grid.spans[row, column] = self._span
        self._covered |= {(row + below, column): text for below in range(1, self._span)}
        self._text = None
        self._take_covered()

    def _take_covered(self) -> None:
        rows = self.found[-1].rows
        while (text := self._covered.get((len(rows) - 1, len(rows[-1])))) is not None:
            rows[-1].append(text)


def html_tables(text: str) -> list[Grid]:
    """Return the HTML tables of a text, in its order."""
    parser = _TableParser()
    parser.feed(text)
    return parser.found


def pipe_tables(text: str) -> list[Grid]:
    """Return the pipe tables of a Markdown text, in its order, without bold marks."""
    found: list[Grid] = []
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        if not inside:
            found.append(Grid())
        inside = True
        cells = [
            " ".join(re.sub(r"\\(?=[*|\[\]])", "", cell.replace("**", "")).split())
            for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]
        ]
        if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            found[-1].rows.append(cells)
    return found


def sweep_experiments(grid: Grid) -> tuple[ExperimentView, ...]:
    """Return an experiment for each row of a sweep's table."""
    return tuple(_sweep_row(f"row-{number}", cells) for number, cells in enumerate(grid.records()))


def tuner_experiments(grid: Grid) -> tuple[ExperimentView, ...]:
    """Return an experiment for each row of a table of SWIFT 2.x's 18 columns."""
    return tuple(_tuner_row(cells) for cells in grid.records())


def export_experiments(grid: Grid) -> tuple[ExperimentView, ...]:
    """Return an experiment for each row of a table of SWIFT 2.x's 9 columns."""
    return tuple(_export_row(cells) for cells in grid.records())


# Sweeps


def _sweep_row(name: str, cells: Mapping[str, str]) -> ExperimentView:
    """Return the experiment of one row: settings become arguments, figures the metrics of its record."""
    args: dict[str, Any] = {"sft_type": "full" if any("[FULL]" in header for header in cells) else "lora"}
    raw: dict[str, Any] = {}
    metrics: dict[str, Any] = {"num_steps": 1000, "num_samples": 16000, "num_tokens": 0}
    num_gpus = 1
    for header, text in cells.items():
        if (gpus := re.search(r"\((\d+)\*A100\)", text)) is not None:
            num_gpus = int(gpus[1])
        bare = re.sub(r" \(\d+\*A100\)", "", text)
        key = header.split("[")[0].split("(")[0].strip().lower().replace(" ", "_")
        match key:
            case "model_type" | "model":
                args["model_type"] = bare
            case "quantization":
                _quantize(args, metrics, bare)
            case "dataset":
                _name_dataset(args, metrics, bare)
            case "hyper_params":
                found = dict(re.findall(r"(\w+)=(\d+)", bare))
                num_gpus = int(found.pop("gpu"))
                raw |= {name: int(value) for name, value in found.items()}
            case "use_flash_attn" | "gradient_checkpointing":
                args[key] = bare == "\N{HEAVY CHECK MARK}"
            case "lora_target_modules":
                args[key] = [bare.split(" ")[0]]
                metrics["target_modules"] = ("c_attn",) if args[key] == ["DEFAULT"] else ("c_attn", "c_proj", "w1")
            case "max_length" | "batch_size" | "lora_rank" | "gradient_accumulation_steps":
                args[key] = int(bare)
            case _:
                metrics |= _figures(header.lower(), bare)
    return _experiment(name, args, raw, metrics, num_gpus=num_gpus)


def _quantize(args: dict[str, Any], metrics: dict[str, Any], text: str) -> None:
    """Put a base of few bits where a job finds it: in the name of its folder for GPTQ, as an argument for bnb."""
    bits = re.search(r"int(\d)", text)
    if bits is None:
        args["dtype"] = text
    elif "bnb" in text:
        args["quantization_bit"] = int(bits[1])
    else:
        args["model_type"] += f"-int{bits[1]}"
        metrics["dtypes"] = {"quantization": f"{bits[1]} bit gptq, groups of 128, TorchLinear, gptqmodel 7.6.0"}


def _name_dataset(args: dict[str, Any], metrics: dict[str, Any], text: str) -> None:
    name, tokens, rows = _match(r"(.*)\((\d+) tokens \* (\d+) rows\)$", text).groups()
    args["dataset"] = [name]
    metrics |= {
        "num_train_rows": int(rows),
        "tokens": TokenStats(mean=float(tokens), std=0, min=0, max=0, num_samples=int(rows)),
    }


def _figures(header: str, text: str) -> dict[str, Any]:
    """Return the raw figures of a cell, in the units of records; nothing where it says that there is none."""
    if text in {"-", "OOM"}:
        return {}
    number = float(_match(r"[\d.]+", text)[0])
    if "memory" in header:
        return {"memory": _peaks(text)}
    if "trainable" in header:
        return {"parameters": Parameters(trainable=round(number * 1e6), total=_TOTAL_PARAMETERS)}
    if "steps" in header:
        return {"num_steps": int(number)}
    if "samples/s" in header:
        return {"samples_per_second": number}
    if "iter/s" in text:
        hours, minutes = (int(found[1]) if (found := re.search(rf"(\d+){unit}", text)) else 0 for unit in ("h", "min"))
        return {"step_time_median_s": 1 / number, "train_time_s": hours * _HOUR_S + minutes * _MINUTE_S}
    return {"train_time_s": number * _MINUTE_S}


def _peaks(text: str) -> tuple[RankMemory, ...]:
    scale = 1 / 1024 if "MiB" in text else 1.0
    peaks = [float(number) * scale for number in re.findall(r"\d+(?:\.\d+)?", text.split("*", maxsplit=1)[0])]
    if len(peaks) > 1:
        return (RankMemory(rank=0, reserved_gib=sum(peaks), reserved_gib_by_gpu=tuple(peaks)),)
    num_ranks = int(text.split("*")[1]) if "*" in text else 1
    return tuple(RankMemory(rank=rank, reserved_gib=peaks[0]) for rank in range(num_ranks))


def _experiment(
    name: str, args: dict[str, Any], raw: dict[str, Any], metrics: dict[str, Any], *, num_gpus: int
) -> ExperimentView:
    environment = A100 | {"gpus": A100["gpus"] | {"names": A100["gpus"]["names"] * num_gpus}}
    known: dict[str, Any] = {"suite": SUITE, "args": args, "environment": environment, "num_gpus": num_gpus}
    if "memory" in metrics:
        metrics.setdefault("parameters", Parameters(trainable=0, total=_TOTAL_PARAMETERS))
        job = make_job(name, "train", metrics=TrainMetrics(**metrics), **known)
    else:
        cause = Cause(type="OutOfMemoryError", message="CUDA out of memory")
        job = make_job(name, "train", state=JobState.OUT_OF_MEMORY, cause=cause, **known)
    return ExperimentView(suite=SUITE, name=name, cmd="sft", main=_with_raw(job, raw), evals=())


def _with_raw(job: JobView, raw: Mapping[str, Any]) -> JobView:
    """Return the job of another version, whose request has arguments that this one does not know."""
    if not raw or job.record is None or job.request is None:
        return job
    request = job.request.model_dump(mode="json")
    return replace(
        job,
        request=None,
        record=job.record.model_copy(update={"request": request | {"args": {**request["args"], **raw}}}),
    )


# Tables of tuners and exports


def _tuner_row(cells: Mapping[str, str]) -> ExperimentView:
    name = cells["exp_name"]
    args: dict[str, Any] = {"model_type": cells["model_type"]}
    evals = _scores(name, cells, args)
    if cells["tuner"] == "None":
        return ExperimentView(suite=SUITE, name=name, cmd="eval", evals=evals)
    args |= {
        "dataset": [cells["dataset"]],
        "train_dataset_mix_ratio": float(cells["ms-bench mix ratio"]),
        "sft_type": cells["tuner"],
        "use_flash_attn": cells["flash_attn"] == "True",
        "gradient_checkpointing": cells["gradient_checkpointing"] == "True",
        **_tuner_args(cells["tuner"], cells["tuner_params"]),
        **_hypers(cells["hypers"]),
    }
    samples, seconds = _match(r".*\((\d+) samples/([\d.]+) seconds\)", cells["train speed(samples/s)"]).groups()
    parameters = re.fullmatch(r"([\d.]+)\(([\d.]+)%\)", cells["trainable params(M)"])
    trainable = _TOTAL_PARAMETERS if parameters is None else round(float(parameters[1]) * 1e6)
    total = _TOTAL_PARAMETERS if parameters is None else round(100 * trainable / float(parameters[2]))
    peaks = _peaks(cells["memory"].replace("GiB", ""))
    train = make_job(
        name,
        "train",
        suite=SUITE,
        args=args,
        environment=A100,
        num_gpus=len(peaks),
        metrics=TrainMetrics(
            parameters=Parameters(trainable=trainable, total=total),
            memory=peaks,
            train_loss=float(cells["train_loss"]),
            eval_loss=float(cells["eval_loss"]),
            num_steps=1000,
            num_samples=int(samples),
            num_tokens=0,
            train_time_s=float(seconds),
            samples_per_second=int(samples) / float(seconds),
            attention="flash_attention_2",
        ),
    )
    return ExperimentView(suite=SUITE, name=name, cmd="sft", main=train, evals=_scores(name, cells, args))


def _export_row(cells: Mapping[str, str]) -> ExperimentView:
    name = cells["exp_name"]
    args = {"model_type": cells["model_type"], "dataset": [cells["calibration dataset"]]}
    own = {"quant_method": cells["quantization method"], "quant_bits": int(cells["quantization bits"])}
    jobs = []
    for job in _scores(name, cells, {}):
        assert job.record is not None
        record = job.record.model_copy(update={"request": {"args": args | own}})
        jobs.append(replace(job, request=None, record=record))
    return ExperimentView(suite=SUITE, name=name, cmd="export", evals=tuple(jobs))


def _scores(name: str, cells: Mapping[str, str], args: dict[str, Any]) -> tuple[JobView, ...]:
    """Return the evals of a row; all generation is that of its first one."""
    infer = re.search(r"\((\d+) tokens/([\d.]+) seconds\)", cells["infer speed(tokens/s)"])
    found: list[EvalMetrics] = []
    for dataset in ("gsm8k", "arc", "ceval"):
        text = cells[f"{dataset} weighted acc"]
        if text:
            speed = (int(infer[1]), float(infer[2])) if infer is not None and not found else None
            found.append(eval_metrics(dataset, "acc,none", float(text), infer=speed))
    return tuple(
        make_job(
            name, f"eval-{metric.dataset}", suite=SUITE, cmd="eval", args=args or None, metrics=metric, environment=A100
        )
        for metric in found
    )


def _tuner_args(tuner: str, text: str) -> dict[str, Any]:
    names = {
        "rank": "lora_rank",
        "alpha": "lora_alpha",
        "lr_ratio": "lora_lr_ratio",
        "num_blocks": "llamapro_num_new_blocks",
    }
    found: dict[str, Any] = {}
    for part in text.split("/") if text else ():
        name, _, value = part.partition("=")
        if name == "target":
            found["lora_target_modules"] = [value]
        elif value != "None":
            found[names.get(name, name)] = {"true": True, "false": False}.get(value.lower(), value)
    if tuner == "full" and "galore_rank" in found:
        found["use_galore"] = True
    return found


def _hypers(text: str) -> dict[str, Any]:
    rate, epochs = _match(r"lr=([\de.-]+)/epoch=(\d+)$", text).groups()
    return {"learning_rate": float(rate), "num_train_epochs": int(epochs)}


def differences(mine: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]]) -> set[tuple[str, str]]:
    """Return both texts of each cell that differs, ours first."""
    assert [len(row) for row in mine] == [len(row) for row in theirs]
    return {
        pair
        for own, other in zip(mine, theirs, strict=True)
        for pair in zip(own, other, strict=True)
        if pair[0] != pair[1]
    }


def _match(pattern: str, text: str) -> re.Match[str]:
    found = re.match(pattern, text)
    assert found is not None, f"{text}: not as the tables have it"
    return found
