"""Whole reports, compared with golden files, and what every report promises."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from typing import Literal

import pytest

from hpcbench.errors import ReportError
from hpcbench.report import Format, render, render_parts
from hpcbench.schemas.collection import Collection, ExperimentView, SuiteView
from hpcbench.schemas.metrics import CommandMetrics
from hpcbench.schemas.record import Cause
from hpcbench.schemas.report_file import ReportFile
from hpcbench.schemas.report_options import Layout, ReportOptions
from hpcbench.schemas.states import FAILED_STATES, JobState
from hpcbench.status.explain import explain
from hpcbench.storage.json_files import dump_json
from tests.conftest import Golden
from tests.support import report_cases as cases
from tests.support import report_parts as parts

CASES = {"quickstart": cases.quickstart, "tuner": cases.tuner, "repeats": cases.repeats}
STYLE_AND_POLICY = re.compile(r"<style>.*?</style>\n|<meta http-equiv=.*?>\n", re.DOTALL)
SEED_HEADER = (
    "| exp_name | model_type | dataset | ms-bench mix ratio | tuner | tuner_params | trainable params(M) | flash_attn | "
    "gradient_checkpointing | hypers | memory | train speed(samples/s) | infer speed(tokens/s) | train_loss | eval_loss | "
    "gsm8k weighted acc | arc weighted acc | ceval weighted acc |"
)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("format_", "layout", "suffix"),
    [
        ("markdown", "table", ".md"),
        ("markdown", "swift", ".swift.md"),
        ("markdown", "pivot", ".pivot.md"),
        ("markdown", "lm-eval", ".lm-eval.md"),
        ("latex", "table", ".tex"),
        ("csv", "table", ".csv"),
        ("long", "table", ".long.csv"),
        ("html", "swift", ".swift.html"),
    ],
)
def test_report_is_the_golden_one(case: str, format_: Format, layout: Layout, suffix: str, golden: Golden) -> None:
    text = render(CASES[case](), format=format_, options=ReportOptions(layout=layout))
    golden(f"report/{case}{suffix}", STYLE_AND_POLICY.sub("", text))


@pytest.mark.parametrize("case", CASES)
def test_same_collection_gives_the_same_text_twice(case: str) -> None:
    for format_ in ("markdown", "csv", "long", "json", "html", "latex"):
        assert render(CASES[case](), format=format_) == render(CASES[case](), format=format_)


@pytest.mark.parametrize("format_", ["csv", "long", "json"])
def test_layout_is_refused_where_values_are_raw(format_: Literal["csv", "long", "json"]) -> None:
    with pytest.raises(ReportError, match=f"--layout swift: {format_} holds raw values and has no layout"):
        render(cases.quickstart(), format=format_, options=ReportOptions(layout="swift"))


@pytest.mark.parametrize("format_", ["markdown", "csv", "long", "json", "html", "latex"])
def test_empty_collection_has_a_report(format_: Format) -> None:
    empty = Collection(suites=(), collected_at=parts.COLLECTED_AT)
    assert render(empty, format=format_)
    assert render(replace(empty, suites=(SuiteView(name="empty", experiments=()),)), format=format_)


def test_empty_suite_is_named() -> None:
    empty = Collection(suites=(SuiteView(name="empty", experiments=()),), collected_at=parts.COLLECTED_AT)
    assert "## empty\n\n0 experiments; collected 2026-07-01 12:34 UTC\n" in render(empty, format="markdown")
    assert SEED_HEADER in render(empty, format="markdown", options=ReportOptions(layout="swift"))


def test_swift_layout_has_the_seed_header_and_rows() -> None:
    lines = render(cases.tuner(), format="markdown", options=ReportOptions(layout="swift")).splitlines()
    assert "=================Printing the sft cmd result of exp tuner==================" in lines
    assert SEED_HEADER in lines
    # Byte for byte SWIFT 2.x's row of the untrained model.
    assert (
        "|qwen-7b-chat-eval|qwen-7b-chat|None|0.0|None||None(None)||||None||30.81(13765 tokens/446.83 seconds)|||"
        "**0.517**|0.679|0.568|"
    ) in lines


def test_swift_layout_puts_losses_under_their_right_names() -> None:
    lines = render(cases.tuner(), format="markdown", options=ReportOptions(layout="swift")).splitlines()
    header = lines[lines.index(SEED_HEADER)].split("|")
    full = next(line for line in lines if line.startswith("|full|")).split("|")
    found = dict(zip((name.strip() for name in header), full, strict=True))
    assert found["train_loss"] == "**0.95**"
    assert found["eval_loss"] == "0.54"
    assert found["train speed(samples/s)"] == "2.87(175086 samples/61022.97 seconds)"


def test_swift_layout_prints_exports_in_their_own_table() -> None:
    """A request whose arguments are newer than this version's, as an export's are."""
    train = parts.make_job("awq-pileval", "train", suite="export", cmd="command", metrics=None)
    score = parts.eval_metrics("arc", "acc_norm,none", 0.675, infer=(12994, 482.72))
    arc = parts.make_job("awq-pileval", "eval-arc", suite="export", cmd="eval", metrics=score)
    record = arc.record
    assert record is not None
    args = {"model_type": "qwen-7b-chat", "dataset": ["pileval"], "quant_method": "awq", "quant_bits": 4}
    arc = replace(arc, record=record.model_copy(update={"request": {"args": args}}))
    view = ExperimentView(suite="export", name="awq-pileval", cmd="export", main=train, evals=(arc,))
    suite = SuiteView(name="export", experiments=(view,))
    text = render(
        Collection(suites=(suite,), collected_at="now"), format="markdown", options=ReportOptions(layout="swift")
    )
    assert "=================Printing the export cmd result of exp export==================" in text
    assert (
        "| exp_name | model_type | calibration dataset | quantization method | quantization bits | infer speed(tokens/s) | "
        "gsm8k weighted acc | arc weighted acc | ceval weighted acc |\n"
    ) in text
    assert "|awq-pileval|qwen-7b-chat|pileval|awq|4|26.92(12994 tokens/482.72 seconds)||0.675||" in text
    assert "Printing the sft cmd" not in text


def test_every_experiment_has_a_row_whatever_its_state() -> None:
    text, _, _ = render(cases.tuner(), format="markdown").partition("### Cost")
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    names = {experiment.name for experiment in cases.tuner().suites[0].experiments}
    assert names <= set(rows)
    assert "failed: exit code 3" in rows["lora+neftune"]
    assert rows["lora+neftune"].count("blocked") == 3
    assert "running: step 340/1250 (27%)" in rows["lora+"]
    assert "pending: Priority" in rows["rslora"]
    assert "OOM" in rows["full+long"]


def test_failures_say_what_to_type_next() -> None:
    text = render(cases.tuner(), format="markdown")
    assert "2. `tuner/lora+neftune train`: **failed**: exit code 3\n" in text
    assert "   - log: `/shared/logs/tuner/lora+neftune/train/attempt-1/output.log`\n" in text
    assert "   - blocks: eval-gsm8k, eval-arc, eval-ceval\n" in text
    assert "   - next: `hpcbench logs tuner/lora+neftune`, `hpcbench retry tuner/lora+neftune`, " in text
    assert '     File "train.py", line 3, in <module>\n' in text


def test_a_report_names_the_same_next_commands_as_why() -> None:
    collection = cases.tuner()
    text = render(collection, format="markdown")
    failed = [job for job in collection.jobs if job.state in FAILED_STATES or job.state is JobState.OUT_OF_MEMORY]
    assert failed
    for job in failed:
        for line in explain(job).splitlines():
            if line.startswith("  next: "):
                assert f"`{line.removeprefix('  next: ').split('  (')[0]}`" in text


def test_out_of_memory_is_a_result_and_no_retry_is_offered() -> None:
    text = render(cases.tuner(), format="markdown")
    assert "hpcbench retry tuner/full+long" not in text
    assert "a result, never retried by itself" in text


def test_debug_limit_is_told_in_cell_and_warning() -> None:
    text = render(cases.repeats(), format="markdown")
    assert "0.700 ± 0.105 (limit=20)" in text
    assert "- pig\\_latin" not in text
    assert "- pig_latin: limit=20: only the first documents were evaluated (full); not comparable" in text


def test_different_versions_are_told() -> None:
    assert "records come from different hpcbench versions: 0.0.9 (lora-r4-seed0); 0.1.0 (" in render(
        cases.repeats(), format="markdown"
    )


def test_csv_has_raw_values_and_a_row_per_experiment() -> None:
    rows = list(csv.DictReader(io.StringIO(render(cases.repeats(), format="csv"))))
    assert [row["experiment"] for row in rows] == [
        "lora-r4-seed0", "lora-r4-seed1", "lora-r4-seed2", "full", "llama.cpp",
    ]  # fmt: skip
    assert float(rows[0]["train_samples_per_second"]) == 1920 / 151.3
    assert rows[0]["memory_peak_gib"] == "1.84"
    assert rows[0]["pig_latin_exact_match"] == "0.455"
    assert rows[3]["pig_latin_debug"] == "True"
    assert rows[4]["images_per_second"] == "81.25"
    assert rows[4]["train_loss"] == ""


def test_reported_value_under_a_name_of_ours_does_not_replace_it() -> None:
    job = parts.make_job("own", "train", suite="s", cmd="command", metrics=CommandMetrics(values={"train_loss": 7.0}))
    view = ExperimentView(suite="s", name="own", cmd="command", main=job)
    collection = Collection(suites=(SuiteView(name="s", experiments=(view,)),), collected_at=parts.COLLECTED_AT)
    (row,) = csv.DictReader(io.StringIO(render(collection, format="csv")))
    assert row["train_loss"] == ""
    assert row["own_train_loss"] == "7.0"


def test_json_holds_figures_settings_and_causes() -> None:
    report = json.loads(render(cases.tuner(), format="json"))
    assert report["schema_version"] == 2
    assert report["collected_at"] == parts.COLLECTED_AT
    experiments = {experiment["name"]: experiment for experiment in report["suites"][0]["experiments"]}
    assert experiments["lora"]["values"]["train_loss"] == 1.0134
    assert experiments["lora"]["evals"]["gsm8k_exact_match,strict-match"] == 0.462
    assert experiments["lora"]["environment"]["gpus"]["driver"] == "570.86.15"
    assert "record" not in experiments["lora"]["jobs"][0]
    failed = experiments["lora+neftune"]
    assert failed["state"] == "failed"
    assert failed["jobs"][0]["cause"]["exit_code"] == 3
    assert [job["state"] for job in failed["jobs"][1:]] == ["blocked"] * 3
    assert experiments["lora+"]["jobs"][0]["progress"]["step"] == 340


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_json_has_the_keys_of_its_schema_and_no_others(case: str, full: bool) -> None:
    report = json.loads(render(CASES[case](), format="json", options=ReportOptions(full=full)))
    assert ReportFile.model_validate(report).model_dump(mode="json", exclude_unset=True) == report


def test_full_json_holds_the_record_of_each_job() -> None:
    report = json.loads(render(cases.tuner(), format="json", options=ReportOptions(full=True)))
    experiments = {experiment["name"]: experiment for experiment in report["suites"][0]["experiments"]}
    assert experiments["lora"]["jobs"][0]["record"]["environment"]["slurm"]["job_partition"] == "gpu"
    assert experiments["rslora"]["jobs"][0]["record"] is None


@pytest.mark.parametrize("format_", ["markdown", "html", "latex", "csv", "long"])
def test_records_are_refused_where_they_have_no_place(format_: Format) -> None:
    with pytest.raises(ReportError, match=f"--full: {format_} has no records of jobs in it"):
        render(cases.quickstart(), format=format_, options=ReportOptions(full=True))


def test_json_averages_repeats() -> None:
    (repeat,) = json.loads(render(cases.repeats(), format="json"))["suites"][0]["repeats"]
    assert repeat["base_experiment"] == "lora-r4"
    assert repeat["values"]["pig_latin_exact_match"]["n"] == 3
    assert repeat["values"]["pig_latin_exact_match"]["mean"] == pytest.approx(0.4533, abs=1e-4)
    assert repeat["values"]["eval_loss"]["std"] == pytest.approx(0.00581, abs=1e-5)
    assert "pig_latin_exact_match_stderr" not in repeat["values"]


def test_json_survives_nan_in_a_progress_file() -> None:
    job = parts.make_job(
        "a", "train", suite="s", state=JobState.RUNNING, progress={"step": float("nan"), "loss": float("inf")}
    )
    view = ExperimentView(suite="s", name="a", cmd="sft", main=job)
    collection = Collection(suites=(SuiteView(name="s", experiments=(view,)),), collected_at=parts.COLLECTED_AT)
    report = json.loads(render(collection, format="json"))
    assert report["suites"][0]["experiments"][0]["jobs"][0]["progress"] == {"step": None, "loss": None}


def test_hostile_names_and_causes_break_neither_table_nor_page() -> None:
    evil = "a|b`c\n| x | <script>alert(1)</script> **bold** \\| [l](u)\x1b[31m"
    job = parts.make_job(
        evil, "train", suite=evil, state=JobState.FAILED, cause=Cause(type="X", message=evil, lines=(evil, "```"))
    )
    view = ExperimentView(suite=evil, name=evil, cmd="sft", main=job)
    collection = Collection(
        suites=(SuiteView(name=evil, experiments=(view,)),), collected_at=parts.COLLECTED_AT, warnings=(evil,)
    )
    for layout in ("table", "swift"):
        text = render(collection, format="markdown", options=ReportOptions(layout=layout))
        assert "\x1b" not in text
        table = [line for line in text.splitlines() if line.startswith("|")]
        results = [line for line in text.partition("### Cost")[0].splitlines() if line.startswith("|")]
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in results}) == 1
        assert not any("<script>" in line for line in table)
    for layout in ("table", "swift"):
        page = render(collection, format="html", options=ReportOptions(layout=layout))
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert "\x1b" not in page


def test_long_names_are_cut() -> None:
    view = ExperimentView(suite="s", name="n" * 500, cmd="sft")
    collection = Collection(suites=(SuiteView(name="s", experiments=(view,)),), collected_at=parts.COLLECTED_AT)
    text = render(collection, format="markdown")
    assert f"{'n' * 79}…" in text
    assert "n" * 80 not in text


@pytest.mark.parametrize("full", [False, True])
def test_json_is_made_an_experiment_at_a_time_and_is_canonical(full: bool) -> None:
    collection = cases.quickstart()
    made = list(render_parts(collection, format="json", options=ReportOptions(full=full)))
    text = "".join(made)
    assert text == dump_json(json.loads(text))
    assert len(made) > len(collection.suites[0].experiments)


def test_json_of_no_suites_is_canonical() -> None:
    text = render(Collection(suites=(), collected_at=parts.COLLECTED_AT), format="json")
    assert text == dump_json(json.loads(text))
