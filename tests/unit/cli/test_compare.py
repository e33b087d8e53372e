"""The verb compare: what its two words may mean, where its document goes, its exit codes, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hpcbench.cli.compared_sides import Place, find_place
from hpcbench.compare.result import ComparisonReport
from hpcbench.errors import PlanError
from tests.support.typed_commands import run_here

RECORDED = Path(__file__).parents[2] / "recorded" / "save_dir_0_1" / "logs"


@pytest.fixture(name="places", autouse=True)
def two_save_dirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand beside two save directories, `logs` and `new`, the second one with a slower training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HPCBENCH_SAVE_DIR", raising=False)
    shutil.copytree(RECORDED, tmp_path / "logs")
    shutil.copytree(RECORDED, tmp_path / "new")
    path = tmp_path / "new/quickstart/lora-r4/train/record.json"
    record = json.loads(path.read_text())
    record["metrics"]["samples_per_second"] /= 2
    path.write_text(json.dumps(record))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("new", Place(save_dir=Path("new"))),
        ("new/", Place(save_dir=Path("new"))),
        ("new:quickstart", Place(save_dir=Path("new"), suite="quickstart")),
        ("new:quickstart/lora-*", Place(save_dir=Path("new"), suite="quickstart", experiment="lora-*")),
        ("quickstart", Place(save_dir=Path("logs"), suite="quickstart")),
        ("quickstart/full", Place(save_dir=Path("logs"), suite="quickstart", experiment="full")),
        ("new/quickstart", Place(save_dir=Path("new"), suite="quickstart")),
        ("new/quickstart/full/", Place(save_dir=Path("new"), suite="quickstart", experiment="full")),
    ],
)
def test_a_word_names_results(places: Path, text: str, place: Place) -> None:
    found = find_place(text, places / "logs")

    assert found.save_dir == places / place.save_dir
    assert (found.suite, found.experiment, found.report) == (place.suite, place.experiment, None)


def test_a_saved_report_is_a_side_whole_or_in_part(places: Path) -> None:
    assert run_here("collect", "-o", "old.json").code == 0

    assert find_place("old.json", places / "logs").report == Path("old.json")
    place = find_place("old.json:quickstart/full", places / "logs")
    assert (place.report, place.suite, place.experiment) == (Path("old.json"), "quickstart", "full")
    assert "12 experiments" not in run_here("compare", "old.json:quickstart", "new:quickstart").out


def test_what_is_nowhere_is_refused_with_what_can_be_named(places: Path) -> None:
    with pytest.raises(PlanError) as caught:
        find_place("quickstrt", places / "logs")
    assert str(caught.value) == (
        "quickstrt: no results of this name\n"
        "  expected: a save directory, DIR:SUITE, a suite, SUITE/EXPERIMENT, or a report.json of `hpcbench collect`\n"
        "  hint: did you mean 'quickstart'?"
    )


@pytest.mark.parametrize("text", ["new:quickstrt", "quickstart/nothing", "new/quickstart:x", "missing.json", "new:"])
def test_words_that_mean_nothing_end_with_2(text: str) -> None:
    done = run_here("compare", text, "new")

    assert (done.code, done.out) == (2, "")
    assert text.rstrip(":") in done.err or "quickstrt" in done.err


def test_in_a_pipe_it_prints_markdown_and_ends_with_0() -> None:
    done = run_here("compare", "quickstart", "new:quickstart")

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("# hpcbench comparison\n\n- A, before: quickstart, results until ")


def test_on_a_terminal_it_prints_the_terminals_form() -> None:
    done = run_here("compare", "quickstart", "new:quickstart", columns=100)

    assert done.code == 0
    assert done.out.startswith("A, before: quickstart, results until ")
    assert "|" not in done.out


@pytest.mark.parametrize(
    ("name", "start"), [("c.md", "# hpcbench"), ("c.html", "<!DOCTYPE html>"), ("c.json", '{\n  "schema_version": 1')]
)
def test_the_ending_of_a_file_names_the_format(places: Path, name: str, start: str) -> None:
    assert run_here("compare", "quickstart", "new:quickstart", "-o", name).out == f"wrote {name}\n"
    assert (places / name).read_text().startswith(start)


def test_json_is_a_comparison_of_the_published_schema() -> None:
    done = run_here("compare", "quickstart", "new:quickstart", "--format", "json")

    report = ComparisonReport.model_validate_json(done.out)
    assert [pair.name for pair in report.pairs] == ["baseline", "lora-r4", "lora-r32", "full"]


def test_the_same_input_prints_the_same_document() -> None:
    first, second = (run_here("compare", "quickstart", "new:quickstart", "--format", "html").out for _ in range(2))

    assert first == second


@pytest.mark.parametrize(
    ("condition", "code", "err"),
    [
        ("train_samples_per_second<-60%", 0, ""),
        (
            "train_samples_per_second<-5%",
            1,
            "--fail-if train_samples_per_second<-5%: FAILED: lora-r4: train samples/s",
        ),
        ("worse", 0, ""),
    ],
)
def test_a_condition_decides_the_exit_code(condition: str, code: int, err: str) -> None:
    done = run_here("compare", "quickstart", "new:quickstart", "--fail-if", condition)

    assert done.code == code
    assert done.err.startswith(err)
    assert bool(done.err) == bool(err)
    assert condition in done.out.replace("&lt;", "<"), "the document says what was judged"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", "0"], "--alpha 0: not a probability\n  expected: a number between 0 and 1, as 0.05"),
        (["--format", "csv"], "--format csv: unknown; expected: terminal, markdown, json, html"),
        (["-o", "c.csv"], "c.csv: no format has this ending\n  expected: .md, .markdown, .txt, .html, .htm, .json"),
        (["--fail-if", "pig_latin"], "--fail-if pig_latin: not a condition"),
        (["--fail-if", "pig_latn<0"], "--fail-if pig_latn<0: no metric pig_latn"),
        (["--match", "x:y"], "--match x:y: no such experiment: x"),
        (["--only", "x"], "--only: no such experiment: x"),
    ],
)
def test_wrong_options_end_with_2(options: list[str], message: str) -> None:
    done = run_here("compare", "quickstart", "new:quickstart", *options)

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {message}")


def test_experiments_of_one_suite_are_compared_by_match() -> None:
    done = run_here("compare", "quickstart", "quickstart")
    assert done.code == 2
    assert "`--match OLD:NEW` compares experiments of one suite with each other" in done.err

    done = run_here("compare", "quickstart", "quickstart", "--match", "baseline:*", "--format", "json")
    report = ComparisonReport.model_validate_json(done.out)
    assert [pair.name for pair in report.pairs] == ["baseline → lora-r4", "baseline → lora-r32", "baseline → full"]


def test_two_single_experiments_are_a_pair() -> None:
    done = run_here("compare", "quickstart/baseline", "quickstart/full", "--format", "json")

    assert [pair.name for pair in ComparisonReport.model_validate_json(done.out).pairs] == ["baseline → full"]
