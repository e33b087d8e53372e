"""`collect`: which format it takes, where it writes, which suites it means."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from hpcbench.cli.conventions import EXIT_USAGE
from hpcbench.cli.report_options import LAYOUTS
from hpcbench.schemas.report_options import Layout
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import SuitePaths
from tests.support.report_cases import quickstart
from tests.support.typed_commands import Ended, run_here

SUITES = ("qwen", "tuners-a100", "tuners-h200")
STARTS = {
    "markdown": "# hpcbench report",
    "csv": "suite,",
    "json": "{",
    "html": "<!DOCTYPE html>",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder whose `logs` hold three suites of one experiment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HPCBENCH_SAVE_DIR", raising=False)
    for name in SUITES:
        experiments = [{"name": f"{name}-lora", "cmd": "sft", "jobs": ["train"]}]
        write_json(SuitePaths(tmp_path / "logs", name).plan, {"suite": name, "experiments": experiments})
    return tmp_path


def collect(*words: str, columns: int | None = None) -> Ended:
    return run_here("collect", "--save-dir", "logs", *words, columns=columns)


def format_of(text: str) -> str:
    return next(name for name, start in STARTS.items() if text.lower().startswith(start.lower()))


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("report.html", "html"),
        ("report.HTM", "html"),
        ("report.csv", "csv"),
        ("report.json", "json"),
        ("report.md", "markdown"),
        ("report.markdown", "markdown"),
        ("report.txt", "markdown"),
        ("report", "markdown"),
    ],
)
def test_the_ending_of_the_file_decides_the_format(file: str, expected: str, folder: Path) -> None:
    assert collect("-o", file).out == f"wrote {file}\n"
    assert format_of((folder / file).read_text(encoding="utf-8")) == expected


def test_a_file_with_the_ending_of_no_format_is_refused(folder: Path) -> None:
    done = collect("-o", "report.pdf")
    assert done.code == EXIT_USAGE
    assert done.err == (
        "error: report.pdf: no format has this ending\n"
        "  expected: .md, .markdown, .txt, .html, .htm, .tex, .csv, .json\n"
        "  hint: name the format with --format\n"
    )
    assert not (folder / "report.pdf").exists()
    assert collect("-o", "report.pdf", "--format", "html").code == 0


def test_a_format_that_was_named_outweighs_the_ending(folder: Path) -> None:
    collect("-o", "report.html", "--format", "csv")
    assert format_of((folder / "report.html").read_text(encoding="utf-8")) == "csv"


@pytest.mark.parametrize(("typed", "expected"), [("HTML", "html"), ("md", "markdown"), ("Csv", "csv"), ("htm", "html")])
def test_formats_are_taken_in_any_case_and_by_their_short_names(typed: str, expected: str) -> None:
    assert format_of(collect("--format", typed).out) == expected


def test_an_unknown_format_is_refused_with_those_that_there_are() -> None:
    done = collect("--format", "htlm")
    assert done.code == EXIT_USAGE
    assert done.err == (
        "error: --format htlm: unknown; expected: terminal, markdown, html, latex, csv, long, json\n"
        "  hint: did you mean 'html'?\n"
    )


def test_a_terminal_shows_the_short_report_and_names_the_command_of_the_whole_one() -> None:
    text = collect("qwen", columns=80).out
    assert "qwen  1 experiment: 1 planned" in text
    assert text.splitlines()[-1].startswith("full report: hpcbench collect qwen -o report.html --save-dir ")
    assert "|" not in text


@pytest.mark.parametrize("words", [["-o", "-"], ["--format", "markdown"], ["--layout", "swift"]])
def test_a_terminal_shows_markdown_where_that_is_asked_for(words: list[str]) -> None:
    name = "exp_name" if "swift" in words else "experiment"
    assert f"| {name}" in collect(*words, columns=80).out


def test_a_pipe_gets_markdown_unless_the_terminal_report_is_asked_for() -> None:
    assert format_of(collect().out) == "markdown"
    assert "1 experiment: 1 planned" in collect("--format", "terminal").out


def test_a_dash_prints_and_makes_no_file(folder: Path) -> None:
    assert format_of(collect("-o", "-", "--format", "csv").out) == "csv"
    assert {entry.name for entry in folder.iterdir()} == {"logs"}


def test_the_terminal_report_is_refused_for_a_file(folder: Path) -> None:
    assert collect("-o", "report.txt", "--format", "terminal").code == EXIT_USAGE
    assert not (folder / "report.txt").exists()


@pytest.mark.parametrize(
    "words", [["--layout", "swift"], ["--columns", "lora_rank"], ["--by", "lora_rank"], ["--best", "eval_loss"]]
)
def test_the_terminal_report_takes_no_columns_of_other_formats(words: list[str]) -> None:
    done = collect("--format", "terminal", *words)
    assert (done.code, done.out) == (EXIT_USAGE, "")
    assert done.err.startswith("error: --format terminal: chooses its columns by itself\n  hint: ")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["tuners*"], SUITES[1:]),
        (["tuners-*", "qwen"], SUITES),
        (["*h200"], SUITES[2:]),
        (["q?en"], SUITES[:1]),
        ([], SUITES),
    ],
)
def test_suites_are_named_by_globs(names: list[str], expected: tuple[str, ...]) -> None:
    report = json.loads(collect(*names, "--format", "json").out)
    assert tuple(suite["name"] for suite in report["suites"]) == expected


def test_a_glob_that_matches_no_suite_is_refused() -> None:
    done = collect("qwen", "tunes*")
    assert done.code == EXIT_USAGE
    assert "no such suite: tunes*" in done.err


@pytest.mark.parametrize("format_", ["csv", "json"])
def test_a_layout_that_a_format_has_no_place_for_is_wrong_usage(format_: str) -> None:
    done = collect("--layout", "swift", "--format", format_)
    assert (done.code, done.out) == (EXIT_USAGE, "")
    assert f"--layout swift: {format_} holds raw values" in done.err


def test_plots_are_written_beside_the_report_which_shows_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    (folder / "reports").mkdir()
    monkeypatch.setattr("hpcbench.cli.selection.gather_suites", lambda *_: quickstart())
    ended = collect("--plots", "plots", "-o", "reports/report.md")
    assert ended.code == 0
    assert ended.out == "wrote reports/report.md\n"
    assert ended.err == "wrote 3 pictures as PNG and SVG into plots\n"
    text = (folder / "reports" / "report.md").read_text(encoding="utf-8")
    shown = re.findall(r"\[!\[[^\]]*\]\(([^)]*)\)\]\(([^)]*)\)", text)
    assert len(shown) == 3
    assert all((folder / "reports" / path).is_file() for links in shown for path in links)
    assert all(path.startswith("../plots/") for links in shown for path in links)


def test_plots_of_nothing_measured_say_so(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    ended = collect("qwen", "--plots", "plots")
    assert ended.out.startswith("# hpcbench report")
    assert ended.err == "no pictures in plots: nothing has two figures or a curve to draw yet\n"


def test_plots_where_no_folder_can_be_made_are_refused(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    (folder / "file").touch()
    ended = collect("--plots", "file/plots")
    assert ended.code == EXIT_USAGE
    assert "--plots file/plots: Not a directory\n  hint: name a folder that you may write to" in ended.err


def test_columns_of_a_report_are_typed_separated_by_commas() -> None:
    done = collect("--columns", "experiment, lora_rank", "--format", "csv")
    assert done.out.splitlines() == ["experiment,lora_rank", *(f"{name}-lora," for name in SUITES)]


def test_a_suites_own_layout_is_that_of_its_report_until_another_is_typed(folder: Path) -> None:
    plan = {"suite": "qwen", "experiments": [], "report": {"layout": "swift"}}
    write_json(SuitePaths(folder / "logs", "qwen").plan, plan)
    assert "Printing the sft cmd result of exp qwen" in collect("qwen").out
    assert "Printing the sft cmd result of exp qwen" not in collect("qwen", "--layout", "table").out


def test_options_that_mean_nothing_are_wrong_usage() -> None:
    done = collect("--top", "3")
    assert done.code == EXIT_USAGE
    assert done.err == (
        "error: --top: of what?\n  hint: name the figure that ranks experiments, for example --best eval_loss\n"
    )


def test_every_layout_can_be_typed() -> None:
    assert get_args(Layout) == LAYOUTS
