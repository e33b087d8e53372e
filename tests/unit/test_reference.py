"""REFERENCE.md says what the schemas say; `--update-golden` rewrites it."""

from __future__ import annotations

import re

import pytest

from tests.support.places import ROOT
from tests.support.reference import render_reference

FILE = ROOT / "REFERENCE.md"


def test_the_reference_holds_what_the_schemas_say(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden"):
        FILE.write_text(render_reference(), encoding="utf-8")
    assert FILE.read_text(encoding="utf-8") == render_reference(), "run `pytest tests/unit --update-golden`"


def test_every_link_within_the_reference_leads_to_a_heading() -> None:
    text = render_reference()
    headings = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


def test_every_decision_is_in_the_index_of_decisions() -> None:
    text = (ROOT / "DECISIONS.md").read_text(encoding="utf-8")
    assert re.findall(r"^- \[(\d+\. .+)\]\(#", text, re.MULTILINE) == re.findall(r"^## (\d+\. .+)$", text, re.MULTILINE)
