"""The forms of a comparison: golden documents, narrow terminals, hostile text."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from hpcbench.compare.comparison import compare
from hpcbench.compare.conditions import judge_conditions, parse_condition
from hpcbench.compare.html import render_html
from hpcbench.compare.markdown import render_markdown
from hpcbench.compare.pairs import match_experiments
from hpcbench.compare.result import ComparisonReport
from hpcbench.compare.terminal import render_terminal
from hpcbench.schemas.states import JobState
from tests.conftest import Golden
from tests.support.compare_cases import experiment, quickstart_figures, side, zeros_and_ones

HOSTILE = "</td><script>alert(1)</script>|`*_[x](y)"


@pytest.fixture(name="report", scope="module")
def comparison_of_everything(tmp_path_factory: pytest.TempPathFactory) -> ComparisonReport:
    """Better, worse, by chance, missing, untested; repeats on other hardware; conditions; what has no partner."""
    a, b = tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
    better = zeros_and_ones(both=100, only_before=10, only_after=40, neither=50)
    by_chance = zeros_and_ones(both=100, only_before=10, only_after=12, neither=78)
    falling = [number / 100 for number in range(100)], [number / 110 for number in range(100)]
    oom = JobState.OUT_OF_MEMORY
    newer = {"gpus": {"names": ["NVIDIA H100"], "driver": "580.1"}, "packages": {"torch": "2.12.0"}}
    older = {"gpus": {"names": ["NVIDIA A100"], "driver": "570.8"}, "packages": {"torch": "2.11.0"}}
    seconds = {1: (150, 120), 2: (152, 121), 3: (149, 119)}
    before = side(
        experiment(a, "baseline", by_chance[0], train=False),
        experiment(a, "lora", better[0]),
        experiment(a, "full", falling[0], metric="rouge,none"),
        experiment(a, "dora", by_chance[0]),
        experiment(a, "gone", by_chance[0]),
        *(
            experiment(a, f"ia3-{seed}", better[0], base="ia3", args={"seed": seed}, environment=older,
                       train=quickstart_figures(seconds=old))
            for seed, (old, _) in seconds.items()
        ),
        source="old",
    )  # fmt: skip
    after = side(
        experiment(b, "baseline", by_chance[1], train=False),
        experiment(b, "lora", better[1], args={"lora_rank": 16}),
        experiment(b, "full", falling[1], metric="rouge,none"),
        experiment(b, "dora", by_chance[1], train_state=oom, eval_state=JobState.BLOCKED),
        *(
            experiment(b, f"ia3-{seed}", better[1], base="ia3", args={"seed": seed}, environment=newer,
                       train=quickstart_figures(seconds=new))
            for seed, (_, new) in seconds.items()
        ),
        source="new",
    )  # fmt: skip
    conditions = [parse_condition(text) for text in ("words<-0.02", "eval_loss>5%", "train_samples_per_second<-10%")]
    return judge_conditions(compare(before, after, match_experiments(before, after)), conditions)


def terminal_text(report: ComparisonReport, width: int, *, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=width, force_terminal=False, legacy_windows=False)
    console.print(render_terminal(report))
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


def test_markdown(report: ComparisonReport, golden: Golden) -> None:
    golden("compare/everything.md", render_markdown(report))


def test_json(report: ComparisonReport, golden: Golden) -> None:
    golden("compare/everything.json", f"{report.model_dump_json(indent=1)}\n")
    assert ComparisonReport.model_validate_json(report.model_dump_json()) == report


def test_html(report: ComparisonReport, golden: Golden) -> None:
    page = re.sub(
        r"<style>.*?</style>", "<style></style>", render_html(report), flags=re.DOTALL
    )  # collect's page has it too
    golden("compare/everything.html", re.sub(r"sha256-[^&]*", "sha256-", page))


@pytest.mark.parametrize("width", [80, 140])
def test_terminal(report: ComparisonReport, golden: Golden, width: int) -> None:
    text = terminal_text(report, width)

    assert max(len(line) for line in text.splitlines()) <= width
    golden(f"compare/everything.{width}.txt", text)


def test_a_terminal_of_ascii_gets_ascii(report: ComparisonReport) -> None:
    assert "lora_rank: 8 -> 16" in terminal_text(report, 100, encoding="ascii")


def test_a_page_asks_nothing_of_any_network_and_runs_nothing(report: ComparisonReport) -> None:
    page = render_html(report)

    assert "default-src &#39;none&#39;; style-src" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_long_tables_show_what_differs_on_a_terminal_and_count_the_rest(tmp_path: Path) -> None:
    same, better = ([0.0, 1.0] * 20, [0.0, 1.0] * 20), zeros_and_ones(both=5, only_before=0, only_after=30, neither=5)
    names = [f"lora-{number}" for number in range(50)]
    sides = [
        side(
            *(
                experiment(tmp_path / "ab"[place], name, (better if name == "lora-49" else same)[place], train=False)
                for name in names
            ),
            source="AB"[place],
        )
        for place in (0, 1)
    ]

    before, after = sides
    text = terminal_text(compare(before, after, match_experiments(before, after)), 140)
    assert "lora-49" in text
    assert "lora-45" not in text
    assert "not shown here: 10 lines without a significant difference; --format markdown shows all" in text


@pytest.mark.parametrize("render", [render_markdown, render_html])
def test_foreign_text_cannot_leave_its_place(report: ComparisonReport, render: object) -> None:
    pair = report.pairs[1]
    comparison = pair.comparisons[0].model_copy(update={"label": HOSTILE, "metric": HOSTILE, "remarks": (HOSTILE,)})
    hostile = report.model_copy(
        update={
            "pairs": (pair.model_copy(update={"name": HOSTILE, "comparisons": (comparison,)}),),
            "warnings": (HOSTILE,),
            "before": report.before.model_copy(update={"source": HOSTILE, "only_here": (HOSTILE,)}),
        }
    )

    assert callable(render)
    text = render(hostile)
    assert "<script>" not in text
    assert HOSTILE not in text


def test_json_has_no_nan(report: ComparisonReport) -> None:
    json.loads(report.model_dump_json(), parse_constant=pytest.fail)
