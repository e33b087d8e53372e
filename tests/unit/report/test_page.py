"""The HTML report as text: what its payload says, what its frame allows. What it does is tested in a browser."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hpcbench.report import ReportContext, render
from hpcbench.report.page.frame import PACKED
from hpcbench.report.page.payload import build_payload
from hpcbench.schemas.collection import Collection, ExperimentView, SuiteView
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.storage.json_files import dump_json
from tests.conftest import Golden
from tests.support import report_cases as cases
from tests.support import report_parts as parts
from tests.support import report_sweeps as sweeps

CASES = {"quickstart": cases.quickstart, "tuner": cases.tuner, "repeats": cases.repeats}
EVIL = "a|b</script><script>alert(1)</script><!--\u2028\x1b[31m"


def payload_of(collection: Collection, **options: Any) -> dict[str, Any]:
    return build_payload(collection, ReportOptions(**options))


def data_of(page: str) -> dict[str, Any]:
    """Return the payload as a browser reads it."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found.group(1))
    return data | {key: json.loads(gzip.decompress(base64.b64decode(data[key]))) for key in PACKED}


@pytest.mark.parametrize("case", CASES)
def test_payload_is_the_golden_one(case: str, golden: Golden) -> None:
    payload = payload_of(CASES[case]())
    del payload["details"]  # long, and tested by itself
    golden(f"report/{case}.page.json", dump_json(payload))


def test_a_browser_reads_the_payload_that_was_built() -> None:
    assert data_of(render(cases.tuner(), format="html")) == payload_of(cases.tuner())


def test_hostile_names_do_not_leave_their_element() -> None:
    view = ExperimentView(suite=EVIL, name=EVIL, cmd="sft")
    collection = Collection(
        suites=(SuiteView(name=EVIL, experiments=(view,)),), collected_at=parts.COLLECTED_AT, warnings=(EVIL,)
    )
    page = render(collection, format="html")
    assert "</script><script>alert" not in page
    assert page.count("</script>") == 3
    assert "\x1b" not in page
    assert data_of(page)["suites"][0]["name"].startswith("a|b</script>")


def test_policy_allows_this_style_and_this_program_alone() -> None:
    page = render(cases.tuner(), format="html")

    def own_hash(tag: str) -> str:
        found = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert found is not None
        return base64.b64encode(hashlib.sha256(found.group(1).encode()).digest()).decode()

    packed = re.search(r'id="program">(.*?)</script>', page)
    assert packed is not None
    program = hashlib.sha256(gzip.decompress(base64.b64decode(packed.group(1)))).digest()
    scripts = f"&#39;sha256-{own_hash('script')}&#39; &#39;sha256-{base64.b64encode(program).decode()}&#39;"
    assert (
        f"default-src &#39;none&#39;; style-src &#39;sha256-{own_hash('style')}&#39;; script-src {scripts}; "
        "base-uri &#39;none&#39;; form-action &#39;none&#39;"
    ) in page.replace("&#43;", "+")


def test_other_layouts_have_no_program() -> None:
    assert "<script" not in render(cases.tuner(), format="html", options=ReportOptions(layout="swift"))


def test_without_a_program_the_first_rows_are_a_table_and_the_rest_is_counted() -> None:
    views = tuple(ExperimentView(suite="s", name=f"e{number}", cmd="sft") for number in range(130))
    collection = Collection(suites=(SuiteView(name="s", experiments=views),), collected_at=parts.COLLECTED_AT)
    page = render(collection, format="html")
    assert page.count("<td>e") == 50
    assert "80 more rows are not shown without JavaScript" in page


@pytest.mark.parametrize(("case", "num_experiments"), [(sweeps.tuners, 24), (sweeps.sweep, 300)])
def test_a_page_with_curves_is_small_enough_to_attach(case: Callable[[], Collection], num_experiments: int) -> None:
    context = ReportContext(artifacts=sweeps.SyntheticArtifacts())
    assert len(render(case(), format="html", context=context).encode()) <= 100_000 + 600 * num_experiments


@pytest.mark.long
def test_ten_thousand_experiments_are_less_than_eight_megabytes() -> None:
    context = ReportContext(artifacts=sweeps.SyntheticArtifacts())
    assert len(render(sweeps.sweep(repeats=100), format="html", context=context).encode()) < 8_000_000


def test_a_figure_that_is_missing_is_missing() -> None:
    by_name = {experiment["name"]: experiment for experiment in payload_of(cases.tuner())["experiments"]}
    assert "eval_loss" not in by_name["full+long"]["values"]
    assert by_name["full+long"]["texts"]["memory_peak_gib"] == "OOM"
    assert by_name["lora"]["errors"]["gsm8k_exact_match,strict-match"] == 0.0137


def test_repeats_share_their_base() -> None:
    found = payload_of(cases.repeats())["experiments"]
    assert [experiment.get("base") for experiment in found] == ["lora-r4"] * 3 + [None] * 2


def test_suite_says_how_it_wants_to_be_shown() -> None:
    (suite,) = cases.tuner().suites
    asked = replace(suite, report=ReportOptions(best="eval_loss"))
    payload = payload_of(replace(cases.tuner(), suites=(asked,)), top=3)
    assert payload["suites"][0]["report"] == {"best": "eval_loss", "top": 3}
