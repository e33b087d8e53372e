"""The columns of rows that answered prompts (`cmd: infer`): speeds of both phases, latencies, agreement with labels."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from hpcbench.report.cells import number_text
from hpcbench.report.column import Column, Raw
from hpcbench.report.facts import Facts, hardware
from hpcbench.schemas.metrics import InferMetrics, Latency

_PERCENTILES = "p50/p90/p99"


def _same_work(facts: Facts) -> Hashable:
    """Return what speeds may be compared within: model, hardware, rows at a time."""
    model = None if facts.args is None else facts.args.model_name
    batch = None if facts.infer is None or facts.infer.infer is None else facts.infer.infer.batch_size
    return model, None if facts.view.main is None else hardware(facts.view.main), batch


def _speed(name: str) -> Callable[[Facts], Raw]:
    return lambda facts: None if facts.infer is None or facts.infer.infer is None else getattr(facts.infer.infer, name)


def _percentile(pick: Callable[[InferMetrics], Latency | None], name: str) -> Callable[[Facts], Raw]:
    def get(facts: Facts) -> Raw:
        found = None if facts.infer is None else pick(facts.infer)
        return None if found is None else getattr(found, name)

    return get


def _latency(metrics: InferMetrics) -> Latency | None:
    return metrics.latency


def _first_token(metrics: InferMetrics) -> Latency | None:
    return metrics.first_token_latency


def _show(pick: Callable[[InferMetrics], Latency | None]) -> Callable[[Facts], str]:
    def show(facts: Facts) -> str:
        found = None if facts.infer is None else pick(facts.infer)
        if found is None:
            return ""
        return "/".join(number_text(value, 3) for value in (found.p50_s, found.p90_s, found.p99_s))

    return show


PREFILL_SPEED = Column(
    key="prefill_tokens_per_second",
    header="prefill (tokens/s)",
    decimals=1,
    get=_speed("prefill_tokens_per_second"),
    better="higher",
    peers=_same_work,
    measured=True,
    note="prefill: prompt tokens over the time to the first token of each batch, of rows that answered prompts",
)
DECODE_SPEED = Column(
    key="decode_tokens_per_second",
    header="decode (tokens/s)",
    decimals=1,
    get=_speed("decode_tokens_per_second"),
    better="higher",
    peers=_same_work,
    measured=True,
    note="decode: the tokens after the first of each answer over the rest of the time",
)
FIRST_TOKEN = Column(
    key="first_token_p50_s",
    header=f"first token {_PERCENTILES} (s)",
    decimals=3,
    get=_percentile(_first_token, "p50_s"),
    show=_show(_first_token),
    better="lower",
    peers=_same_work,
    measured=True,
)
LATENCY = Column(
    key="latency_p50_s",
    header=f"latency {_PERCENTILES} (s)",
    decimals=3,
    get=_percentile(_latency, "p50_s"),
    show=_show(_latency),
    better="lower",
    peers=_same_work,
    measured=True,
    note=f"latency {_PERCENTILES}: from the start of a batch to a row's last token; the best median is marked",
)
EXACT_MATCH = Column(
    key="exact_match",
    header="exact match",
    decimals=3,
    get=lambda facts: None if facts.infer is None else facts.infer.exact_match,
    better="higher",
    measured=True,
    note="exact match: part of the answers that are the row's own, but for white space around them",
)
SHOWN = (PREFILL_SPEED, DECODE_SPEED, FIRST_TOKEN, LATENCY, EXACT_MATCH)
"""In the order of the tables."""
DATA_ONLY = (
    Column(key="num_answers", get=lambda facts: None if facts.infer is None else facts.infer.num_rows),
    Column(key="infer_backend", get=lambda facts: None if facts.infer is None else facts.infer.backend),
    PREFILL_SPEED,
    DECODE_SPEED,
    FIRST_TOKEN,
    Column(key="first_token_p90_s", get=_percentile(_first_token, "p90_s")),
    Column(key="first_token_p99_s", get=_percentile(_first_token, "p99_s")),
    LATENCY,
    Column(key="latency_p90_s", get=_percentile(_latency, "p90_s")),
    Column(key="latency_p99_s", get=_percentile(_latency, "p99_s")),
    EXACT_MATCH,
)
"""Every raw value, in the order of the CSV file."""
