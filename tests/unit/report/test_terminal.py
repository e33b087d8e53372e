"""The table that ends a `submit --wait`, on wide, narrow, colourless and ASCII terminals."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hpcbench.report.terminal import render_terminal
from hpcbench.schemas.collection import Collection, ExperimentView, SuiteView
from tests.conftest import Golden
from tests.support import report_cases as cases
from tests.support import report_parts as parts


def printed(collection: Collection, *, width: int, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    Console(file=stream, width=width, force_terminal=False, color_system=None).print(
        render_terminal(collection), crop=False
    )
    stream.flush()
    text = raw.getvalue().decode(encoding)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


@pytest.mark.parametrize("width", [80, 110])
@pytest.mark.parametrize("case", [cases.quickstart, cases.tuner, cases.repeats])
def test_table_fits_the_terminal(case: object, width: int) -> None:
    assert callable(case)
    text = printed(case(), width=width)
    assert max(len(line) for line in text.splitlines() if not line.startswith("  next: ")) <= width
    for view in case().suites[0].experiments:
        assert (view.base_experiment or view.name) in text


def test_terminal_text_is_the_golden_one(golden: Golden) -> None:
    golden("report/quickstart.terminal.txt", printed(cases.quickstart(), width=110))
    golden("report/tuner.terminal.txt", printed(cases.tuner(), width=110))


def test_narrow_terminal_says_what_it_leaves_out() -> None:
    assert "not shown here: infer tokens/s, params M, tuner" in printed(cases.tuner(), width=80)


def test_ascii_terminal_gets_plain_marks() -> None:
    text = printed(cases.repeats(), width=110, encoding="ascii")
    assert "0.453 +- 0.023" in text
    assert "lora-r4 x3" in text


def test_empty_collection_says_so() -> None:
    assert "No experiments found." in printed(Collection(suites=(), collected_at="never"), width=80)


def test_brackets_in_names_are_no_markup() -> None:
    job = parts.make_job("[red]a[/red]", "train", suite="s")
    view = ExperimentView(suite="s", name="[red]a[/red]", cmd="sft", main=job)
    collection = Collection(
        suites=(SuiteView(name="[b]s", experiments=(view,)),), collected_at="never", warnings=("[x]",)
    )
    text = printed(collection, width=100)
    assert "[red]a[/red]" in text
    assert "[b]s" in text
    assert "[x]" in text
