"""`hpcbench.load`: a save directory as frames, in the names of the CSV report."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

import hpcbench
from hpcbench.errors import ReportError
from hpcbench.report import render
from tests.support import report_cases
from tests.support.places import RECORDED

pytest.importorskip("pandas")
LOGS = RECORDED / "save_dir_0_1" / "logs"


@pytest.fixture(scope="module")
def results() -> hpcbench.Results:
    return hpcbench.load(LOGS, "quickstart", ask_scheduler=False)


def test_a_frame_has_a_row_per_experiment_and_the_columns_of_the_csv_report(results: hpcbench.Results) -> None:
    frame = results.frame()
    assert list(frame.columns) == render(results.collection, format="csv").splitlines()[0].split(",")
    assert list(frame["experiment"]) == ["baseline", "lora-r4", "lora-r32", "full"]
    row = frame.set_index("experiment").loc["lora-r4"]
    assert (row["lora_rank"], row["state"]) == (4, "completed")
    assert 0 < row["pig_latin_exact_match"] < 1
    assert math.isnan(frame.set_index("experiment").loc["baseline", "train_loss"])


def test_a_long_frame_has_a_row_per_figure(results: hpcbench.Results) -> None:
    frame = results.frame(long=True)
    (score,) = frame[(frame["experiment"] == "lora-r4") & (frame["metric"] == "exact_match")]["value"]
    assert score == results.frame().set_index("experiment").loc["lora-r4", "pig_latin_exact_match"]


def test_texts_that_look_like_missing_numbers_stay_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'suite,experiment,value\ns,NA,1\ns,None,\n"s",nan,2\n'
    monkeypatch.setattr("hpcbench.results.results.render", lambda *_, **__: text)
    frame = hpcbench.Results(save_dir=LOGS, collection=report_cases.quickstart()).frame()
    assert list(frame["experiment"]) == ["NA", "None", "nan"]
    assert math.isnan(frame["value"][1])


def test_names_that_look_like_numbers_stay_names(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "suite,experiment,value\ns,1e-4,1\ns,001,2\n"
    monkeypatch.setattr("hpcbench.results.results.render", lambda *_, **__: text)
    frame = hpcbench.Results(save_dir=LOGS, collection=report_cases.quickstart()).frame()
    assert list(frame["experiment"]) == ["1e-4", "001"]


def test_a_history_has_a_row_per_step_with_the_evaluations_beside(results: hpcbench.Results) -> None:
    history = results.history("lora-r4")
    assert (history.index.name, history.index[0], history.index[-1], len(history)) == ("step", 1, 200, 23)
    assert history.loc[1, "loss"] == 11.721160888671875
    assert history.loc[200, "eval_loss"] == 0.08868117177780255
    assert math.isnan(history.loc[1, "eval_loss"])
    assert history["learning_rate"].idxmax() > 1


def test_a_baseline_has_an_empty_history(results: hpcbench.Results) -> None:
    history = results.history("quickstart/baseline")
    assert (len(history), history.index.name) == (0, "step")


def test_samples_have_prompt_target_answer_and_a_column_per_metric(results: hpcbench.Results) -> None:
    samples = results.samples("lora-r4", "pig_latin")
    first = samples.iloc[0]
    assert (first["dataset"], first["task"], first["doc_id"], first["target"]) == (
        "pig_latin", "pig_latin", 0, "eetstray"
    )  # fmt: skip
    assert (first["response,none"], first["exact_match,none"]) == ("etretsay", 0.0)
    score = results.frame().set_index("experiment").loc["lora-r4", "pig_latin_exact_match"]
    assert samples["exact_match,none"].mean() == pytest.approx(score, abs=0.5)
    assert len(results.samples("lora-r4")) == len(samples)


def test_results_show_themselves_as_text_and_as_escaped_tables() -> None:
    collection = report_cases.quickstart()
    (suite,) = collection.suites
    hostile = replace(suite.experiments[0], name="<script>alert(1)</script>")
    collection = replace(collection, suites=(replace(suite, experiments=(hostile, *suite.experiments[1:])),))
    results = hpcbench.Results(save_dir=Path("logs"), collection=collection)
    assert repr(results).startswith("Results of logs\n")
    html = results._repr_html_()
    assert html.startswith("<table><caption>")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script" not in html


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda found: found.history("lora-r5"), "no such experiment: lora-r5\n  hint: did you mean 'lora-r4'?"),
        (lambda found: found.samples("full", "arc"), "full: not evaluated on arc\n  hint: there are: pig_latin"),
        (lambda _: hpcbench.load(LOGS, "quickstrat"), "no such suite: quickstrat\n  hint: did you mean 'quickstart'?"),
        (lambda _: hpcbench.load(LOGS / "nothing"), "no suites found\n  hint: name the folder"),
    ],
)  # fmt: skip
def test_unknown_names_are_refused_with_those_that_are_there(
    results: hpcbench.Results, call: object, message: str
) -> None:
    assert callable(call)
    with pytest.raises(ReportError) as error:
        call(results)
    assert message in str(error.value)


def test_a_name_of_two_suites_needs_its_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    both = hpcbench.load(LOGS, "on_slurm", "programs", ask_scheduler=False)
    with pytest.raises(ReportError, match="several experiments are called good\n  hint: name one of: on_slurm/good"):
        both.history("good")


def test_without_pandas_the_extra_is_named(results: hpcbench.Results, monkeypatch: pytest.MonkeyPatch) -> None:
    def importing(name: str) -> SimpleNamespace:
        raise ImportError(name)

    monkeypatch.setattr("hpcbench.results.results.import_module", importing)
    with pytest.raises(ReportError) as error:
        results.frame()
    assert str(error.value) == (
        "frames need pandas, which is not installed\n  hint: pip install 'hpcbench-llm[analysis]'"
    )


def test_importing_hpcbench_imports_nothing_of_it() -> None:
    code = "import hpcbench, sys; print([name for name in sys.modules if name.startswith('hpcbench.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert import_module("hpcbench").load is hpcbench.load
