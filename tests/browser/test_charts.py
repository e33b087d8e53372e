"""What the HTML report draws in a browser: trade-offs, curves, failures, one experiment in full, two rows beside each other."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from hpcbench.report import ReportContext
from hpcbench.schemas.collection import Collection
from tests.browser.conftest import PHONE, WIDE, Open
from tests.support.report_sweeps import HOSTILE, SyntheticArtifacts, hostile, sweep, tuners

CONTEXT = ReportContext(artifacts=SyntheticArtifacts(num_steps=300), folder=Path("/shared/reports"))
BOXES = """(selector) => [...document.querySelectorAll(selector)].map((each) => {
  const {left, right, top, bottom} = each.getBoundingClientRect();
  return [left, top, right, bottom];
})"""
SCROLLS_SIDEWAYS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def show(open_page: Open) -> Callable[..., Page]:
    def show_it(collection: Collection, address: str = "", **options: object) -> Page:
        return open_page(collection, address=address, report_context=CONTEXT, **options)

    return show_it


Show = Callable[..., Page]


def overlapping(boxes: list[list[float]]) -> list[tuple[int, int]]:
    return [
        (first, second)
        for (first, a), (second, b) in itertools.combinations(enumerate(boxes), 2)
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
    ]


@pytest.mark.parametrize("size", [WIDE, PHONE])
@pytest.mark.parametrize("collection", [tuners, lambda: sweep(repeats=1)], ids=["tuners", "sweep"])
def test_names_in_scatters_cover_neither_each_other_nor_points(
    collection: Callable[[], Collection], size: tuple[int, int], show: Show
) -> None:
    page = show(collection(), size=size)
    for number in range(page.locator("#tradeoffs .scatter").count()):
        plot = f"#tradeoffs .panel:nth-child({number + 1}) .scatter"
        names = page.evaluate(BOXES, f"{plot} .name")
        points = page.evaluate(BOXES, f"{plot} .point")
        assert names or points == [] or len(points) > 40
        assert overlapping(names) == []
        assert not [1 for name in names for point in points if overlapping([name, point])]


def test_front_is_green_and_the_note_says_what_has_no_figures(show: Show) -> None:
    page = show(tuners())
    panel = page.locator("#tradeoffs .panel").last
    best = panel.locator("a:has(.point.best)")
    assert sorted(name.split(":")[0] for name in best.evaluate_all("all => all.map((a) => a.getAttribute('aria-label'))")) == [
        "full+lisa_2", "lora+no_mix", "lora+packing",
    ]  # fmt: skip
    expect(panel).to_contain_text("Green: no complete row is better in both. 17 of 24 rows have both figures.")


def test_axes_can_be_chosen_and_the_filter_takes_points_away(show: Show) -> None:
    page = show(tuners())
    panel = page.locator("#tradeoffs .panel").first
    panel.locator("select").nth(1).select_option("memory_peak_gib")
    panel.locator("select").first.select_option("eval_loss")
    expect(panel.locator("svg")).to_have_attribute("aria-label", re.compile(r"eval.loss ↓ against memory.* ↓, 17 rows"))
    page.get_by_role("button", name=re.compile("out of memory")).first.click()
    expect(panel).to_contain_text("No row that is shown has both figures.")


def test_point_opens_its_experiment_and_escape_closes_it(show: Show) -> None:
    page = show(tuners())
    page.locator("#tradeoffs .panel").last.locator("a[aria-label^='dora:']").click(force=True)
    sheet = page.get_by_role("dialog")
    expect(sheet.get_by_role("heading", name="dora")).to_be_visible()
    assert page.evaluate("location.hash") == "#exp=tuners%2Fdora"
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    assert page.evaluate("location.hash") == ""


def test_ten_best_rows_have_curves_and_the_filter_chooses_others(show: Show) -> None:
    page = show(tuners())
    curves = page.locator("#curves")
    legend = curves.locator(".curve-legend a")
    expect(legend).to_have_count(10)
    assert all(bottom - top < 25 for _, top, _, bottom in page.evaluate(BOXES, "#curves .curve-legend li"))
    assert legend.all_inner_texts()[:3] == ["lora+packing", "lora+no_mix", "dora"]
    expect(curves.get_by_role("img").first).to_have_attribute(
        "aria-label", re.compile("^loss over optimizer steps of lora")
    )
    expect(curves).to_contain_text("The best 10 of 23 rows with curves, by gsm8k")
    expect(curves).to_contain_text("Each point of a line is the mean of up to 3 steps.")
    curves.get_by_label("show the best").select_option("50")
    expect(legend).to_have_count(23)
    page.get_by_role("button", name=re.compile("timeout")).first.click()
    expect(legend).to_have_text(["qlora4"])


def test_curves_can_be_smoothed_zoomed_and_put_on_a_log_scale(show: Show) -> None:
    page = show(tuners())
    canvas = page.locator("#curves canvas")
    canvas.scroll_into_view_if_needed()
    pictures = [canvas.screenshot()]
    page.get_by_label("smoothing").fill("0.9")
    pictures.append(canvas.screenshot())
    page.get_by_label("log scale").check()
    pictures.append(canvas.screenshot())
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 200, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + 200, steps=4)
    page.mouse.up()
    pictures.append(canvas.screenshot())
    assert len(set(pictures)) == len(pictures)
    page.mouse.move(box["x"] + 300, box["y"] + 120)
    expect(page.locator("#curves .readout")).to_have_text(
        re.compile(r"^step \d+: .+, (training|validation) loss [\d.]+$")
    )


def test_repeats_are_one_curve_with_a_band(show: Show) -> None:
    page = show(sweep(repeats=2))
    expect(page.locator("#curves .curve-legend li").first).to_contain_text("(n=2)")
    expect(page.locator("#curves")).to_contain_text("Repeats are their mean, with a band of one standard deviation.")


def test_failures_are_grouped_and_their_command_is_copied(show: Show) -> None:
    page = show(tuners())
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    group = page.locator("#failures details").first
    expect(group.locator("summary")).to_have_text(
        "2 \N{MULTIPLICATION SIGN} failed losses are not finite since step 1760 of 5471 · blocks 2 jobs"
    )
    group.locator("summary").click()
    expect(group.get_by_role("link")).to_have_text(["llamapro", "llamapro-lr2"])
    group.get_by_role("button", name="copy").first.click()
    expect(group.get_by_role("button", name="copied").first).to_be_visible()
    command = group.locator(".command pre").first.inner_text()
    assert page.evaluate("navigator.clipboard.readText()") == command
    assert command == "hpcbench submit CONFIG --only llamapro --only llamapro-lr2 --force"


def test_experiment_is_told_in_full(show: Show) -> None:
    page = show(tuners(), "#exp=tuners%2Fdora")
    sheet = page.get_by_role("dialog")
    expect(sheet).to_contain_text("train, submitted 2026-06-10 05:45 UTC, started after 2 h 15 min")
    expect(sheet).to_contain_text("train, attempt 1: preempted after 18 h 12 min on gpu-01")
    expect(sheet.get_by_role("img", name="attempts over time").locator("rect")).to_have_count(3)
    expect(sheet).to_contain_text("gpus.driver: 580.65.06 (most: 570.86.15)")
    assert (
        sheet.get_by_role("link", name="/shared/logs/tuners/dora/train").get_attribute("href")
        == "../logs/tuners/dora/train/"
    )
    answers = sheet.locator(".answer")
    assert [text.split(" gsm8k")[0] for text in answers.locator("summary").all_inner_texts()] == [
        "✔ right", "✔ right", "✘ wrong", "✘ wrong",
    ]  # fmt: skip
    answers.first.locator("summary").click()
    expect(answers.first).to_contain_text("Question: what is 1 + 1?")


def test_failed_experiment_shows_its_log_and_the_next_command(show: Show) -> None:
    page = show(tuners(), "#exp=tuners%2Fqlora4")
    sheet = page.get_by_role("dialog")
    expect(sheet.locator("pre").filter(has_text="step 1750: loss 1.001")).to_be_visible()
    expect(sheet.locator(".command pre").first).to_have_text("hpcbench retry tuners/qlora4 --adjust")


def test_address_of_an_experiment_that_is_not_there_opens_nothing(show: Show) -> None:
    page = show(tuners(), "#exp=tuners%2Fgone%")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_two_rows_are_compared_with_errors_and_directions(show: Show) -> None:
    page = show(tuners(), "#ab=tuners%2Flora,tuners%2Ffull")
    table = page.locator("#ab table").last
    row = table.get_by_role("row", name=re.compile("^gsm8k"))
    expect(row.locator("td")).to_have_text(
        ["0.462 ± 0.014", "0.343 ± 0.014", "\N{MINUS SIGN}0.119", "0.742\N{MULTIPLICATION SIGN}"]
    )
    speed = table.get_by_role("row", name=re.compile("^train.* samples")).locator("td").nth(2)
    expect(speed).to_have_class(re.compile("best"))
    page.locator("#ab select").nth(1).select_option("tuners/rslora")
    expect(table.get_by_role("row", name=re.compile("^gsm8k")).locator("td").nth(2)).to_have_text(
        "~ \N{MINUS SIGN}0.011"
    )
    page.locator("#ab").get_by_role("button", name="swap").click()
    expect(table.get_by_role("row", name=re.compile("^gsm8k")).locator("td").nth(2)).to_have_text("~ +0.011")


@pytest.mark.parametrize("address", ["", "#exp=" + "hostile%2F%3C%2Fscript%3E"])
def test_odd_names_stay_text(address: str, show: Show) -> None:
    page = show(hostile(), address)
    page.on("dialog", lambda dialog: pytest.fail(f"a name ran: {dialog.message}"))
    expect(page.locator("#failures summary")).to_contain_text(HOSTILE)
    page.locator("#failures a").first.click()
    expect(page.get_by_role("dialog").get_by_role("heading", name=HOSTILE, exact=True)).to_be_visible()
    assert page.locator("img, script[src]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("collection", [tuners, hostile, lambda: sweep(repeats=1)], ids=["tuners", "hostile", "sweep"])
def test_nothing_scrolls_sideways_on_a_phone(collection: Callable[[], Collection], scheme: str, show: Show) -> None:
    page = show(collection(), size=PHONE, scheme=scheme)
    for summary in page.locator("#failures summary").all():
        summary.click()
    assert not page.evaluate(SCROLLS_SIDEWAYS)
    page.locator("#curves .curve-legend a").first.click()
    body = page.get_by_role("dialog").locator(".sheet-body")
    assert body.evaluate("(each) => each.scrollWidth <= each.clientWidth")


@pytest.mark.parametrize("place", ["#tradeoffs select", "#tradeoffs input[type=checkbox]", "#ab select", "#ab button"])
def test_keyboard_stays_on_a_control_that_draws_its_section_again(open_page: Open, place: str) -> None:
    page = open_page(tuners())
    page.locator(place).first.focus()
    page.keyboard.press("ArrowDown" if "select" in place else "Space")
    expect(page.locator(place).first).to_be_focused()
