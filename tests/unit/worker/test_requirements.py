"""A job whose Python lacks a library fails before it loads anything, and says what to install."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.request import Command, JobRequest, Resources
from hpcbench.worker import __main__ as worker
from hpcbench.worker.requirements import LibraryMissingError, check_libraries, require


def make_request(cmd: Command, **args: Any) -> JobRequest:
    return JobRequest(
        suite="s",
        experiment="e",
        job="train",
        cmd=cmd,
        fingerprint="f" * 64,
        device="cpu",
        resources=Resources(gpu=0),
        args=SftArgs(model_type="m", **args),
        eval_dataset="arc" if cmd == "eval" else None,
    )


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(
    ("cmd", "args", "module", "extra"),
    [
        ("sft", {}, "torch", "train"),
        ("sft", {}, "peft", "train"),
        ("eval", {}, "datasets", "train"),
        ("eval", {}, "lm_eval", "eval"),
        ("eval", {"quantization_bit": 8}, "bitsandbytes", "bnb"),
        ("sft", {"sft_type": "qlora"}, "bitsandbytes", "bnb"),
        ("sft", {"sft_type": "galore", "galore_quantization": True}, "bitsandbytes", "bnb"),
        ("sft", {"optim": "paged_adamw_8bit"}, "bitsandbytes", "bnb"),
    ],
)
def test_a_missing_library_ends_the_job_at_once(  # noqa: PLR0917  # parameters
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cmd: Command, args: dict[str, Any], module: str, extra: str
) -> None:
    hide(monkeypatch, module)
    started: list[str] = []
    monkeypatch.setattr(worker, "_prepare_libraries", lambda: started.append("libraries"))
    with pytest.raises(LibraryMissingError, match=f"has no {module}") as caught:
        worker.run_request(make_request(cmd, **args), None, None)  # type: ignore[arg-type]  # nothing gets that far
    assert caught.value.hint == f"pip install 'hpcbench-llm[{extra}]' into the Python that runs the jobs"
    assert not started


def test_a_library_that_nothing_asks_for_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "lm_eval", "bitsandbytes")
    check_libraries(make_request("sft"))
    # An eval makes no optimizer.
    monkeypatch.undo()
    hide(monkeypatch, "bitsandbytes")
    check_libraries(make_request("eval", optim="adamw_8bit"))


def test_all_missing_libraries_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "peft", "lm_eval", "bitsandbytes")
    with pytest.raises(LibraryMissingError, match="has no peft, lm_eval, bitsandbytes") as caught:
        check_libraries(make_request("eval", quantization_bit=4))
    assert "hpcbench-llm[train,eval,bnb]" in str(caught.value.hint)


def test_a_library_of_no_extra_is_named_as_pip_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "optimi", "peft")
    with pytest.raises(LibraryMissingError, match="has no peft, optimi") as caught:
        check_libraries(make_request("sft", optim="stable_adamw"))
    assert "pip install 'hpcbench-llm[train]' torch-optimi into" in str(caught.value.hint)


def test_a_broken_library_says_what_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "halfdone.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        LibraryMissingError, match=r"x: 1 needs halfdone, and .* No module named 'nothing_of_that_name'"
    ):
        require("halfdone", for_what="x: 1")
