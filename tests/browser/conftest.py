"""A browser for the tests of the HTML report: Debian's Chromium, one for each file, on pages that ask nothing of a network.

In: the machine. Out: pages that are open; or a skip, or in CI a failure. A request to anywhere fails the test.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from hpcbench.report import NO_CONTEXT, ReportContext, render
from hpcbench.schemas.collection import Collection
from hpcbench.schemas.report_options import ReportOptions

NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDE, PHONE = (1400, 900), (390, 844)

Open = Callable[..., Page]


def is_browser_required(environment: Mapping[str, str]) -> bool:
    """Return whether a missing browser is a failure rather than a test left out."""
    return environment.get("CI") == "true" or environment.get("HPCBENCH_REQUIRE_BROWSER") == "1"


def leave_out(reason: str, environment: Mapping[str, str]) -> NoReturn:
    """Skip the test for want of a browser, or fail it where one has to be there."""
    if is_browser_required(environment):
        pytest.fail(f"a browser is required here, and cannot be had: {reason}")
    pytest.skip(f"browser test left out: {reason}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium, which one file of tests shares."""
    program = next((found for name in NAMES if (found := shutil.which(name)) is not None), None)
    if program is None:
        leave_out(f"none of {', '.join(NAMES)} is on PATH; `make browser` installs one", os.environ)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def open_page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """Return a function that opens the report of a collection from a file, and fails where anything else is asked for."""
    folder = tmp_path_factory.mktemp("pages")
    problems: list[str] = []
    contexts = []

    def open_it(
        collection: Collection,
        *,
        size: tuple[int, int] = WIDE,
        scheme: str = "light",
        options: ReportOptions | None = None,
        address: str = "",
        javascript: bool = True,
        report_context: ReportContext = NO_CONTEXT,
    ) -> Page:
        text = render(collection, format="html", options=options or ReportOptions(), context=report_context)
        file = _written(folder, text)
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if scheme == "dark" else "light",
            java_script_enabled=javascript,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on(
            "request", lambda request: None if request.url.startswith(file.as_uri()) else problems.append(request.url)
        )
        page.goto(file.as_uri() + address)
        if javascript:
            page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert problems == []


def _written(folder: Path, text: str) -> Path:
    file = folder / f"{len(list(folder.iterdir()))}.html"
    file.write_text(text, encoding="utf-8")
    return file
