"""Make the pictures of the README: reports and a comparison as Chromium shows them, the terminal's report as it prints.

    python -m tests.browser.pictures DEMO OTHER

In: a save directory with the demo's results and another one, as `hpcbench demo --save-dir DEMO` leaves it. Out: PNG and
SVG in tests/golden/pictures/. No test compares them: look at them after a change that is meant.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shutil
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME

from hpcbench.report import ReportContext, render
from hpcbench.report.terminal import render_terminal
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.status.artifacts import ArtifactsOnDisk
from hpcbench.status.gather import gather
from tests.support import report_sweeps
from tests.support.places import ROOT
from tests.support.typed_commands import run_here

FOLDER = ROOT / "tests" / "golden" / "pictures"
SHOTS = (
    ("1400", (1400, 1000), "light"),
    ("1400-dark", (1400, 1000), "dark"),
    ("390", (390, 844), "light"),
    ("390-dark", (390, 844), "dark"),
)
KEPT = ("demo-1400", "demo-390-dark", "tuners-1400-dark", "tuners-390", "sweep-1400", "compare-1400")
"""What the README shows; the others are to be looked at."""


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="write all sizes and schemes there, too")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    pages = {
        "demo": render(
            gather(options.demo, ["quickstart"], release_held=False),
            format="html",
            options=ReportOptions(),
            context=ReportContext(artifacts=ArtifactsOnDisk()),
        ),
        **{
            name: render(make(), format="html", context=ReportContext(artifacts=report_sweeps.SyntheticArtifacts()))
            for name, make in (("tuners", report_sweeps.tuners), ("sweep", report_sweeps.sweep))
        },
        "compare": run_here("compare", str(options.demo), str(options.other), "--format", "html").out,
    }
    program = shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for name, text in pages.items():
            _shoot(browser, name, text, options.all)
        browser.close()
    _draw_terminal(options.demo)


def _shoot(browser: Browser, name: str, text: str, everything: Path | None) -> None:
    file = FOLDER / f"{name}.html"
    file.write_text(text, encoding="utf-8")
    for suffix, (width, height), scheme in SHOTS:
        page = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
        )
        page.goto(file.as_uri())
        page.wait_for_timeout(500)
        if f"{name}-{suffix}" in KEPT:
            page.screenshot(path=FOLDER / f"{name}-{suffix}.png")
        if everything is not None:
            everything.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=everything / f"{name}-{suffix}.png", full_page=True)
        page.close()
    file.unlink()


def _draw_terminal(save_dir: Path) -> None:
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    with contextlib.redirect_stdout(io.StringIO()):
        console.print(render_terminal(gather(save_dir, ["quickstart"], release_held=False)))
    drawn = console.export_svg(title="hpcbench collect", theme=SVG_EXPORT_THEME, unique_id="hpcbench")
    # rich's fonts are on a server; the browser's own monospace font does as well.
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    (FOLDER / "terminal-80.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
