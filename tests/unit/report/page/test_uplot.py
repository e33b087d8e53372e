"""The vendored plotting library is the published one, and may stand in a page."""

from __future__ import annotations

import hashlib
import re

import pytest

from hpcbench.storage.package_data import shipped_file

FOLDER = shipped_file("templates", "report", "uplot")
HASHES = dict(re.findall(r"\| `([^`]+)` \| `([0-9a-f]{64})` \|", (FOLDER / "README.md").read_text()))


@pytest.mark.parametrize("name", ["uPlot.iife.min.js", "uPlot.min.css"])
def test_files_have_the_hashes_of_the_package(name: str) -> None:
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == HASHES[name]


def test_license_and_version_are_with_it() -> None:
    version = re.match(r"# uPlot (\S+)", (FOLDER / "README.md").read_text())
    assert version is not None
    assert f"(v{version[1]})" in (FOLDER / "uPlot.iife.min.js").read_text().splitlines()[0]
    assert "Permission is hereby granted, free of charge" in (FOLDER / "LICENSE").read_text()


def test_script_cannot_end_the_element_that_holds_it() -> None:
    assert "</" not in (FOLDER / "uPlot.min.css").read_text()
    script = (FOLDER / "uPlot.iife.min.js").read_text().casefold()
    assert "</script" not in script
    assert "<!--" not in script
