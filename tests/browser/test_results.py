"""What the HTML report does in a browser: chips, filter, sorting, columns, copies, the sweep; any width, light and dark."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from hpcbench.report.cells import number_text
from hpcbench.schemas.collection import Collection, ExperimentView, JobView, SuiteView
from hpcbench.schemas.record import Cause
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.schemas.states import JobState
from tests.browser.conftest import PHONE, Open
from tests.support import report_cases as cases
from tests.support import report_parts as parts
from tests.support.places import ROOT
from tests.support.report_sweeps import sweep

EVIL = "</script><img src=x onerror=\"window.pwned=1\">|`$x_1$ & 'z'"


def small_sweep() -> Collection:
    """Two ranks x three rates x two seeds; of the last cell one seed ran out of memory."""
    views = []
    for (rank, rate), repeat in itertools.product(itertools.product((4, 16), (1e-5, 1e-4, 1e-3)), (0, 1)):
        base = f"r{rank}-lr{rate:g}"
        args = parts.PIG_LATIN | parts.LORA | {"lora_rank": rank, "learning_rate": rate, "seed": 42 + repeat}
        is_out = (rank, rate, repeat) == (16, 1e-3, 1)
        figures = parts.train_metrics(
            trainable=rank, total=1000, train_loss=1.0, eval_loss=rank / 10 + rate * 100 + repeat / 100, num_samples=100,
            train_time_s=50 + rank, reserved_gib=(10.0 + rank,),
        )  # fmt: skip
        state = JobState.OUT_OF_MEMORY if is_out else JobState.COMPLETED
        train = parts.make_job(
            f"{base}-seed{repeat}", "train", suite="sweep", args=args, state=state, environment=parts.A100,
            metrics=None if is_out else figures, cause=Cause(type="OutOfMemoryError", message="out") if is_out else None,
        )  # fmt: skip
        views.append(
            ExperimentView(suite="sweep", name=f"{base}-seed{repeat}", base_experiment=base, cmd="sft", main=train)
        )
    return Collection(suites=(SuiteView(name="sweep", experiments=tuple(views)),), collected_at=parts.COLLECTED_AT)


def many() -> Collection:
    """Return enough finished experiments for a table with a frame, and for a second page of it."""
    views = [
        ExperimentView(suite="many", name=f"e{number}", cmd="sft", main=_finished(f"e{number}", number))
        for number in range(450)
    ]
    return Collection(suites=(SuiteView(name="many", experiments=tuple(views)),), collected_at=parts.COLLECTED_AT)


def _finished(name: str, number: int) -> JobView:
    figures = parts.train_metrics(
        trainable=1, total=1000, train_loss=1.0, eval_loss=number / 100, num_samples=100, train_time_s=50,
        reserved_gib=(10.0,), mfu=0.3,
    )  # fmt: skip
    args = parts.PIG_LATIN | parts.LORA | {"lora_rank": 1 + number % 8}
    return parts.make_job(name, "train", suite="many", args=args, metrics=figures, environment=parts.A100)


def hostile() -> Collection:
    """Return names, causes and warnings that try to become markup."""
    failed = parts.make_job(
        EVIL, "train", suite=EVIL, args=parts.QWEN | parts.LORA, state=JobState.FAILED,
        cause=Cause(type="x", message=EVIL, lines=(EVIL,)), environment={"host": EVIL},
    )  # fmt: skip
    view = ExperimentView(suite=EVIL, name=EVIL, cmd="sft", main=failed)
    return Collection(
        suites=(SuiteView(name=EVIL, experiments=(view,)),), collected_at=parts.COLLECTED_AT, warnings=(EVIL,)
    )


def names(page: Page) -> list[str]:
    return page.locator("#table tbody th").all_inner_texts()


def head(page: Page, label: str) -> Locator:
    return page.locator("#table thead button", has_text=label)


def column(page: Page, label: str) -> list[str]:
    """Return the texts of a column, errors apart."""
    found: list[str] = page.evaluate(
        """(label) => { const heads = [...document.querySelectorAll('#table thead th')];
        const at = heads.findIndex((head) => head.textContent.startsWith(label));
        return [...document.querySelectorAll('#table tbody tr')].map((row) => row.cells[at].firstChild.textContent); }""",
        label,
    )
    return found


@pytest.fixture(scope="module")
def tuner(open_page: Open) -> Page:
    return open_page(cases.tuner())


@pytest.fixture(scope="module")
def filtered(open_page: Open) -> Page:
    """Return a page in which nothing but the filter is used."""
    return open_page(cases.tuner())


@pytest.fixture(autouse=True)
def as_at_first(request: pytest.FixtureRequest) -> None:
    """Load the shared page again, so that no test sees what another one chose."""
    if "tuner" in request.fixturenames:
        page: Page = request.getfixturevalue("tuner")
        page.reload()
        page.wait_for_selector("html[data-ready]", state="attached")


def test_the_first_screen_holds_results(tuner: Page) -> None:
    card = tuner.locator("#best .card").first
    box = card.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 900
    expect(tuner.locator("h1")).to_have_text("tuner")
    expect(tuner.locator("#counts")).to_contain_text("9 experiments")


def test_sorting_puts_rows_without_a_figure_last_both_ways(tuner: Page) -> None:
    head(tuner, "eval loss").click()
    rising = column(tuner, "eval loss")
    head(tuner, "eval loss").click()
    falling = column(tuner, "eval loss")
    assert rising == ["0.5298", "0.5311", "0.5312", "0.5391"] + ["-"] * 5
    assert falling == ["0.5391", "0.5312", "0.5311", "0.5298"] + ["-"] * 5


def test_the_third_click_brings_back_the_order_of_the_suite(tuner: Page) -> None:
    before = names(tuner)
    for _ in range(3):
        head(tuner, "eval loss").click()
    assert names(tuner) == before


def test_higher_is_better_sorts_the_highest_first(tuner: Page) -> None:
    head(tuner, "gsm8k").click()
    assert column(tuner, "gsm8k")[:2] == ["0.517", "0.473"]


def test_a_screen_reader_is_told_the_order_and_others_see_an_arrow(tuner: Page) -> None:
    head(tuner, "eval loss").click()
    expect(tuner.locator("#table thead th[aria-sort=ascending]")).to_have_text("eval loss▲")
    assert tuner.locator("#table thead th[aria-sort=none]").count() > 5


def test_the_keyboard_sorts_and_keeps_its_place(tuner: Page) -> None:
    head(tuner, "eval loss").focus()
    tuner.keyboard.press("Enter")
    tuner.keyboard.press("Enter")
    expect(tuner.locator("#table thead th[aria-sort=descending]")).to_have_text("eval loss▼")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("failed", ["lora+neftune"]),
        ("dora", ["dora"]),
        ("lora -dora -neftune tuner=lora gsm8k>0.47", ["lora+ddp"]),
        ("state=running", ["lora+"]),
        ("eval_loss<=0.5311", ["dora", "lora+ddp"]),
        ("use_rslora=true", ["rslora"]),
        ("name=full", ["full"]),
        ("gsm8k!=0.462 tuner=lora state=completed", ["dora", "lora+ddp"]),
        ("nothing-is-called-so", []),
    ],
)
def test_the_filter_takes_words_and_conditions(filtered: Page, text: str, found: list[str]) -> None:
    filtered.locator("#filter").fill(text)
    assert names(filtered) == found
    expect(filtered.locator("#shown")).to_contain_text(f"{len(found)} of 9 rows")


def test_a_condition_on_no_column_is_said(tuner: Page) -> None:
    tuner.locator("#filter").fill("lora_rnk=8")
    expect(tuner.locator("#shown")).to_contain_text("no column is called lora_rnk")


def test_chips_of_states_filter(tuner: Page) -> None:
    tuner.locator("#head .chip", has_text="failed").click()
    assert names(tuner) == ["lora+neftune"]
    tuner.locator("#head .chip", has_text="running").click()
    assert names(tuner) == ["lora+neftune", "lora+"]
    expect(tuner.locator("#head .chip[aria-pressed=true]")).to_have_count(2)


def test_columns_are_chosen_and_brought_back(tuner: Page) -> None:
    tuner.locator(".chooser summary").click()
    tuner.locator(".chooser label", has_text="seed").locator("input").check()
    assert head(tuner, "seed").count() == 1
    tuner.locator(".chooser button", has_text="as at first").click()
    assert head(tuner, "seed").count() == 0
    tuner.keyboard.press("Escape")
    expect(tuner.locator(".popup")).to_be_hidden()


def test_the_best_is_marked_and_so_is_what_is_within_its_error(tuner: Page) -> None:
    best = tuner.locator("#table tr", has_text="dora").locator("td.best")
    assert "0.683" in " ".join(best.all_inner_texts())
    near = tuner.locator("#table tr", has_text="qwen-7b-chat-eval").locator("td.near")
    assert "0.679" in " ".join(near.all_inner_texts())


def test_names_and_heads_stay_while_the_table_scrolls(open_page: Open) -> None:
    page = open_page(many(), size=(700, 400))

    def places() -> tuple[float, float]:
        name, frame, top = ("#table tbody th", "#table .wide", "#table thead th")
        of = "(selector) => { const box = document.querySelector(selector).getBoundingClientRect(); return [box.x, box.y]; }"
        x, y = page.evaluate(of, frame)
        return page.evaluate(of, name)[0] - x, page.evaluate(of, top)[1] - y

    before = places()
    page.locator("#table .wide").evaluate("(frame) => { frame.scrollLeft = 300; frame.scrollTop = 40; }")
    assert page.locator("#table .wide").evaluate("(frame) => frame.scrollLeft") == 300
    assert places() == before


def test_rows_that_are_not_shown_are_counted_and_come_on_demand(open_page: Open) -> None:
    page = open_page(many())
    assert len(names(page)) == 200
    expect(page.locator("#table .more")).to_contain_text("250 rows not shown")
    page.locator("#table .more button", has_text="show 200 more").click()
    assert len(names(page)) == 400
    page.locator("#table .more button", has_text="show 50 more").click()
    assert len(names(page)) == 450
    expect(page.locator("#table .more")).to_be_hidden()


def copied(page: Page, button: str) -> str:
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.locator("#table button", has_text=button).click()
    page.wait_for_function("window.copied !== undefined")
    text: str = page.evaluate("window.copied")
    return text


def test_csv_holds_what_is_visible(tuner: Page) -> None:
    tuner.locator("#filter").fill("dora")
    heads, line = (text.split(",") for text in copied(tuner, "copy as CSV").splitlines())
    row = dict(zip(heads, line, strict=True))
    assert row["experiment"] == "dora"
    assert row["gsm8k exact_match"] == "0.466"
    assert row["gsm8k exact_match ±"] == "0.014"


def test_markdown_holds_what_is_visible(tuner: Page) -> None:
    tuner.locator("#filter").fill("eval_loss<=0.5311")
    lines = copied(tuner, "copy as Markdown").splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| dora | ")
    assert "**0.5298**" in lines[2]


def test_repeats_stand_together_or_apart(open_page: Open) -> None:
    page = open_page(cases.repeats())
    assert names(page) == ["lora-r4", "full", "llama.cpp"]
    assert column(page, "eval loss")[0] == "0.4140"
    page.locator("#table label", has_text="each repeat").locator("input").check()
    assert names(page)[:3] == ["lora-r4-seed0", "lora-r4-seed1", "lora-r4-seed2"]


def test_the_sweep_has_means_and_says_what_is_missing(open_page: Open) -> None:
    page = open_page(small_sweep(), options=ReportOptions(by=("lora_rank", "learning_rate"), value=("eval_loss",)))
    rows = page.locator("#sweep tbody tr").all_inner_texts()
    cells = [row.split("\t") for row in rows]
    assert [cell.split()[0] for cell in cells[0]] == ["4", "0.4060", "0.4150", "0.5050"]
    assert cells[0][1].split()[1:] == ["±", "0.0071", "(2)"]
    assert cells[1][3].split() == ["1.7000", "(1", "of", "2)"]
    expect(page.locator("#sweep .curve")).to_have_count(2)
    assert page.locator("#sweep .curve path").first.get_attribute("d") is not None
    assert page.locator("#sweep .curve").first.locator("title").first.text_content() == (
        "lora_rank 4, learning_rate 1e-5: 0.4060 ± 0.0071 (n=2)"
    )


def test_the_sweep_shows_another_figure_and_other_settings(open_page: Open) -> None:
    page = open_page(small_sweep())
    page.locator("#sweep select").nth(0).select_option("learning_rate")
    page.locator("#sweep select").nth(1).select_option("lora_rank")
    page.locator("#sweep select").nth(2).select_option("memory_peak_gib")
    assert page.locator("#sweep tbody tr").count() == 3
    assert "14.00" in page.locator("#sweep tbody tr").first.inner_text()


def test_a_suite_chooses_columns_their_order_and_the_ranking(open_page: Open) -> None:
    page = open_page(
        cases.tuner(), options=ReportOptions(columns=("eval_loss", "gsm8k", "tuner"), best="eval_loss", top=2)
    )
    heads = page.locator("#table thead th").all_inner_texts()
    assert [head.rstrip("▲\n") for head in heads] == ["experiment", "state", "eval loss", "gsm8k exact_match", "tuner"]
    assert names(page) == ["dora", "lora+ddp"]
    expect(page.locator("#table .more")).to_contain_text("7 rows not shown")


def test_the_sweep_follows_the_filter(open_page: Open) -> None:
    page = open_page(small_sweep())
    page.locator("#filter").fill("lora_rank=4")
    assert page.locator("#sweep tbody tr").count() == 1


def test_hostile_names_stay_text(open_page: Open) -> None:
    page = open_page(hostile())
    assert page.evaluate("window.pwned") is None
    assert page.locator("img").count() == 0
    assert names(page) == [EVIL]
    expect(page.locator("h1")).to_have_text(EVIL)
    assert EVIL in page.locator("#head .warnings").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("case", [cases.quickstart, cases.tuner, cases.repeats, small_sweep, hostile])
def test_a_phone_scrolls_in_one_direction(open_page: Open, case: Any, scheme: str) -> None:
    page = open_page(case(), size=PHONE, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_dark_is_dark_and_light_is_light(open_page: Open) -> None:
    shades = []
    for scheme in ("light", "dark"):
        page = open_page(cases.quickstart(), scheme=scheme)
        shades.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert shades == ["rgb(255, 255, 255)", "rgb(17, 21, 29)"]


def test_several_suites_are_shown_together_or_one_at_a_time(open_page: Open) -> None:
    both = Collection(suites=(*cases.tuner().suites, *cases.quickstart().suites), collected_at=parts.COLLECTED_AT)
    page = open_page(both)
    assert len(names(page)) == 13
    page.locator(".tabs button", has_text="quickstart").click()
    assert len(names(page)) == 4
    expect(page.locator("#counts")).to_contain_text("4 experiments")


def test_without_javascript_the_table_is_there(open_page: Open) -> None:
    page = open_page(cases.tuner(), javascript=False)
    assert "lora+neftune" in page.locator("noscript table").first.inner_text()


def test_an_empty_collection_says_so(open_page: Open) -> None:
    page = open_page(Collection(suites=(), collected_at=parts.COLLECTED_AT))
    expect(page.locator("#page")).to_contain_text("No experiments found")


def test_no_part_of_the_repeats_is_the_best_of_the_sweep(open_page: Open) -> None:
    page = open_page(sweep())
    expect(page.locator("#sweep td.top")).to_have_count(1)
    page.get_by_label("filter experiments").fill("learning_rate=1e-3")  # of each rank one repeat or more failed
    expect(page.locator("#sweep td")).not_to_have_count(0)
    expect(page.locator("#sweep td.top")).to_have_count(0)


def test_numbers_print_as_in_the_other_formats(open_page: Open) -> None:
    values = [(0.5625, 3), (0.0625, 3), (0.3125, 3), (2.5, 0), (0.125, 2), (2.675, 2), (0.00005, 4), (1e13, 2), (0, 3)]
    source = (ROOT / "templates" / "report" / "numbers.js").read_text(encoding="utf-8")
    page = open_page(cases.quickstart())
    told = page.evaluate(f"values => {{ {source}\n return values.map((pair) => numberText(...pair)); }}", values)
    expected = [number_text(value, decimals) for value, decimals in values]
    assert told == [re.sub(r"e([-+])0?", lambda sign: "e" + sign[1].strip("+"), text) for text in expected]
