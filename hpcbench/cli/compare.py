"""The verb that compares two sets of results: compare."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcbench.cli.completion import complete_from, complete_suites
from hpcbench.cli.conventions import EXIT_FAILED, add_verb
from hpcbench.cli.options import Only, SaveDir
from hpcbench.cli.report_format import OTHER_NAMES, STANDARD_OUTPUT, SUFFIXES, TERMINAL, format_of_file
from hpcbench.errors import PlanError

if TYPE_CHECKING:
    from hpcbench.compare.result import ComparisonReport

FORMATS = (TERMINAL, "markdown", "json", "html")
ENDINGS = {ending: name for ending, name in SUFFIXES.items() if name in FORMATS}
RESULTS_HELP = "Save directory, DIR:SUITE, suite, SUITE/EXPERIMENT, or report.json"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    add_verb(app, compare, group="Results", example="hpcbench compare baseline.json logs --fail-if 'gsm8k<-0.02'")


def compare(
    before: Annotated[
        str, typer.Argument(metavar="A", help=f"Before: {RESULTS_HELP}.", autocompletion=complete_suites)
    ],
    after: Annotated[str, typer.Argument(metavar="B", help="After: the same.", autocompletion=complete_suites)],
    match: Annotated[
        list[str] | None,
        typer.Option("--match", metavar="OLD:NEW", help="Compare these experiments, not those of one name; globs."),
    ] = None,
    only: Only = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if",
            metavar="EXPR",
            help="Exit with 1 if a difference is so, e.g. 'gsm8k<-0.02', 'train_samples_per_second<-5%', "
            "'eval_loss>0 significant', or worse: anything significantly worse. Repeatable.",
        ),
    ] = None,
    alpha: Annotated[
        float, typer.Option("--alpha", metavar="P", help="Significant below this p-value, all tests together.")
    ] = 0.05,
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="terminal, markdown, json or html. Default: by the ending of FILE; without FILE, terminal on a "
            "terminal, else markdown.",
            autocompletion=complete_from(FORMATS),
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to this file; - prints.")
    ] = None,
    save_dir: SaveDir = None,
) -> None:
    """Compare results, with tests of what is more than chance.

    Scores on the same documents are tested in pairs, figures over repeats; what is missing stays missing.
    """
    from hpcbench.cli.compared_sides import read_side
    from hpcbench.cli.output import print_warning
    from hpcbench.cluster.save_dir import usual_save_dir
    from hpcbench.compare.comparison import compare as compare_sides
    from hpcbench.compare.conditions import judge_conditions, parse_condition
    from hpcbench.compare.pairs import match_experiments
    from hpcbench.compare.wording import condition_texts
    from hpcbench.storage.json_files import write_text

    if not 0 < alpha < 1:
        raise PlanError(f"--alpha {alpha:g}: not a probability\n  expected: a number between 0 and 1, as 0.05")
    file = None if output == STANDARD_OUTPUT else output
    chosen = _choose_format(output_format, file, on_terminal=sys.stdout.isatty() and output is None)
    conditions = [parse_condition(text) for text in fail_if or ()]
    root = usual_save_dir(save_dir)
    sides = read_side(before, root), read_side(after, root)
    matched = match_experiments(*sides, rules=match or (), only=only or ())
    report = judge_conditions(compare_sides(*sides, matched, alpha=alpha), conditions)
    if chosen == TERMINAL:
        from hpcbench.cli.status_table import Terminal
        from hpcbench.compare.terminal import render_terminal

        Terminal().print(render_terminal(report))
    else:
        text = _render(report, chosen)
        if file is None:
            print(text, end="")
        else:
            write_text(file, text)
            print(f"wrote {file}")
    failed = [
        text
        for text, found in zip(condition_texts(report), report.conditions, strict=True)
        if found.outcome != "passed"
    ]
    if failed and chosen != TERMINAL:  # which shows them already
        print_warning("\n".join(f"--fail-if {text}" for text in failed))
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _choose_format(named: str | None, file: Path | None, *, on_terminal: bool) -> str:
    from hpcbench.cli.selection import choose_word

    if named is not None:
        chosen = choose_word("--format", named, FORMATS, other_names=OTHER_NAMES)
    elif file is not None:
        chosen = format_of_file(file, ENDINGS)
    else:
        chosen = TERMINAL if on_terminal else "markdown"
    if chosen == TERMINAL and file is not None:
        raise PlanError(f"--format terminal: does not go into a file ({file})", hint="take --format markdown or html")
    return chosen


def _render(report: ComparisonReport, chosen: str) -> str:
    match chosen:
        case "json":
            return f"{json.dumps(report.model_dump(mode='json'), indent=2)}\n"
        case "html":
            from hpcbench.compare.html import render_html

            return render_html(report)
        case _:
            from hpcbench.compare.markdown import render_markdown

            return render_markdown(report)
