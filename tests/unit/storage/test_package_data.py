"""Files that travel with hpcbench are found in a checkout and in a wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.errors import HpcbenchError
from hpcbench.storage import package_data as shipped
from hpcbench.storage.package_data import shipped_file


def test_checkout_holds_them_at_its_root() -> None:
    assert shipped_file("templates", "report", "report.html.j2").read_text(encoding="utf-8").startswith("{#-")


def test_wheel_holds_them_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "hpcbench"
    template = package / "_shipped" / "templates" / "report" / "report.html.j2"
    template.parent.mkdir(parents=True)
    template.write_text("", encoding="utf-8")
    monkeypatch.setattr(shipped, "__file__", str(package / "storage" / "package_data.py"))
    assert shipped_file("templates", "report", "report.html.j2") == template.resolve()


def test_missing_file_says_what_to_do() -> None:
    with pytest.raises(HpcbenchError, match=r"templates/none\.j2: not found beside .*\n  hint: the installation is"):
        shipped_file("templates", "none.j2")
