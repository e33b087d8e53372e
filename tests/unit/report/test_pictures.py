"""Pictures in files: the same bytes for the same results, and what they leave out is said."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hpcbench.errors import HpcbenchError
from hpcbench.report import ReportContext, render
from hpcbench.report.artifacts import NoArtifacts, PictureLink
from hpcbench.report.pictures import Picture, draw_pictures
from hpcbench.schemas.collection import Collection
from hpcbench.schemas.report_options import ReportOptions
from tests.support import report_cases as cases
from tests.support.report_sweeps import SyntheticArtifacts, hostile, tuners

pytest.importorskip("matplotlib")


def draw(collection: Collection) -> tuple[Picture, ...]:
    return draw_pictures(collection, ReportOptions(), SyntheticArtifacts(num_steps=40))


def test_unchanged_results_give_the_same_bytes() -> None:
    first, second = draw(cases.quickstart()), draw(cases.quickstart())
    names = ("scores", "speed-memory", "trade-off", "loss")
    assert [picture.name for picture in first] == [f"quickstart-{name}" for name in names]
    assert [(picture.png, picture.svg) for picture in first] == [(picture.png, picture.svg) for picture in second]


def test_files_are_png_and_svg_without_dates() -> None:
    for picture in draw(cases.quickstart()):
        assert picture.png.startswith(b"\x89PNG\r\n\x1a\n")
        assert b"Matplotlib" not in picture.png
        assert b"<svg " in picture.svg
        assert b"<dc:date>" not in picture.svg


def test_names_are_drawn_as_they_are_written() -> None:
    # Dollar signs mean no formula, and file names no other folder.
    names = [picture.name for picture in draw(hostile())]
    assert names == ["hostile-scores", "hostile-speed-memory", "hostile-trade-off", "hostile-loss"]
    odd = cases.quickstart().suites[0]
    pictures = draw(replace(cases.quickstart(), suites=(replace(odd, name="../../etc/x"),)))
    assert all(Path(picture.name).name == picture.name for picture in pictures)


def test_collection_without_two_figures_or_a_curve_has_no_pictures() -> None:
    assert draw(Collection(suites=(), collected_at="2026-07-01T12:34:56+00:00")) == ()
    suite = tuners().suites[0]
    one = replace(tuners(), suites=(replace(suite, experiments=suite.experiments[-1:]),))
    assert draw_pictures(one, ReportOptions(), NoArtifacts()) == ()


def test_missing_matplotlib_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(HpcbenchError) as raised:
        draw(cases.quickstart())
    hint = "pip install 'hpcbench-llm[analysis]'"
    assert str(raised.value) == f"pictures need matplotlib, which is not installed\n  hint: {hint}"


def test_markdown_shows_the_pictures_of_each_suite_after_its_tables() -> None:
    link = PictureLink(suite="quickstart", title="quickstart: loss | steps", path="my plots/quickstart-loss.png")
    other = PictureLink(suite="other", title="other", path="other.png")
    text = render(cases.quickstart(), format="markdown", context=ReportContext(pictures=(link, other)))
    picture = "[![quickstart: loss \\| steps](my%20plots/quickstart-loss.png)](my%20plots/quickstart-loss.svg)"
    assert f"\n### Pictures\n\n{picture}\n\n### Notes\n" in text
    assert "other.png" not in text
