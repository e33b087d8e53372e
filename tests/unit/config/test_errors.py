"""What config refuses: the whole text for each kind of mistake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcbench.config.loading import load_suites
from hpcbench.errors import ConfigError
from tests.conftest import Golden
from tests.support.places import GOLDEN
from tests.support.suite_writer import HEAD, messages_of, refusal

GOLDEN_FILES = GOLDEN / "config"
CASES = sorted((GOLDEN_FILES / "errors").glob("*.yaml"))


@pytest.mark.parametrize("case", CASES, ids=[case.stem for case in CASES])
def test_error_texts(case: Path, golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.parent)
    with pytest.raises(ConfigError) as caught:
        load_suites([Path(case.name)])
    text = str(caught.value).replace(str(case.parent), "FOLDER") + "\n"
    golden(str(case.with_suffix(".txt").relative_to(GOLDEN)), text)


def test_every_golden_text_has_its_case() -> None:
    assert {path.stem for path in (GOLDEN_FILES / "errors").glob("*.txt")} == {case.stem for case in CASES}


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("lora_rank=8", "--set: lora_rank: unknown key"),
        ("args.lora_rank=eight", "--set: args.lora_rank: got 'eight'\n  expected: integer, 1 or more"),
        ("args.lora_rnak=8", "--set: args.lora_rnak: unknown argument 'lora_rnak'\n  hint: did you mean 'lora_rank'?"),
        ("args.system=", "--set: args.system: no value\n  hint: write null to remove an inherited value, or '\"\"' for empty text"),
        ("args.lora_rank", "--set: args.lora_rank: got 'args.lora_rank'\n  expected: KEY=VALUE, for example args.lora_rank=16"),
        ("args..x=1", "--set: args..x: got 'args..x=1'\n  expected: KEY=VALUE, for example args.lora_rank=16"),
        ("cmd.x=1", "--set: cmd.x: `cmd` can only be set as a whole"),
        ("args=8", "--set: args: got 8\n  expected: a mapping (key: value)"),
        ("args.lora_target_modules=[a", "--set: args.lora_target_modules: not valid YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"),
        ("args.dataset=nowhere.jsonl", "--set: args.dataset: no such file: 'nowhere.jsonl'\n  hint: looked for CWD/nowhere.jsonl"),
    ],
)  # fmt: skip
def test_overrides_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    found = refusal(tmp_path / "x", HEAD + "experiment: [{name: a}]", override).replace(str(tmp_path), "CWD")
    assert found == text or (
        override == "lora_rank=8" and found.startswith(text) and "did you mean 'args.lora_rank'?" in found
    )


def test_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.yaml").write_text(HEAD + "experiment: [{name: a}]")
    (tmp_path / "my suite.yaml").write_text(HEAD + "experiment: [{name: a}]")
    os.mkfifo(tmp_path / "pipe.yaml")
    assert messages_of([]) == ["no suite given"]
    assert messages_of(
        [tmp_path / "empty", tmp_path / "none.yaml", tmp_path / "my suite.yaml", tmp_path / "pipe.yaml"]
    ) == [
        "no suite in this folder",
        "no such file or folder",
        "not a regular file",
        "the name 'my suite' holds ' '",
    ]
    assert messages_of([tmp_path / "one", tmp_path / "two"]) == [f"{tmp_path}/one/same.yaml is a suite 'same' already"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", '{"note": "x", "id": 1}\n', "d.jsonl: line 1: no known set of columns; found: note, id"),
        ("d.json", '[{"note": "x"}]', "d.json: row 1: no known set of columns; found: note"),
        ("d.csv", "note,label\na,b\n", "d.csv: line 2: no known set of columns; found: note, label"),
        ("d.csv", "query,response\n", "d.csv: holds no rows"),
        ("d.json", "[]", "d.json: holds no rows"),
        ("d.json", "[1, 2]", "d.json: row 1: a JSON number"),
        ("d.json", "[{", "d.json: line 1: not valid JSON: Expecting property name enclosed in double quotes"),
        ("d.jsonl", "query: x\n", "d.jsonl: line 1: not valid JSON: Expecting value (column 1)"),
        ("d.jsonl", "  \n", "d.jsonl: is empty"),
        ("d.jsonl", b"\xff\xfe", "d.jsonl: is UTF-16 text"),
        ("d.jsonl", "[" * 100_000, "d.jsonl: line 1: not valid JSON: nested too deeply"),
        ("d.json", "[" * 100_000, "d.json: line 1: not valid JSON: nested too deeply"),
        ("d.json", '[{"text": "' + "x" * (2 << 20), "d.json: line 1: not valid JSON: Unterminated string starting at"),
    ],
)
def test_datasets_that_cannot_be_trained_on(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "s.yaml").write_text(
        f"cmd: sft\nargs: {{model: org/m, dataset: {name}}}\nexperiment: [{{name: a}}, {{name: b}}]"
    )
    assert messages_of([tmp_path / "s.yaml"]) == [f"{tmp_path}/{message}"]


def test_the_expected_fields_are_named(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"note": 1}')
    text = refusal(tmp_path, "cmd: sft\nargs: {model: org/m, dataset: d.jsonl}\nexperiment: [{name: a}]")
    assert text == (
        "demo.yaml:2: args.dataset: d.jsonl: line 1: no known set of columns; found: note\n"
        "  expected: messages | conversations | query + response | instruction + output | question + answer | "
        "prompt + completion | text"
    )


def test_bytes_of_a_command_line_that_are_no_text_are_refused(tmp_path: Path) -> None:
    wrong = os.fsdecode(b"\xff")
    folder = tmp_path / wrong
    folder.mkdir()
    (folder / "demo.yaml").write_text("cmd: command\nargs: {command: sleep}\nexperiment: [{name: a}]\n")
    (tmp_path / "fine.yaml").write_text((folder / "demo.yaml").read_text())
    assert messages_of([folder / "demo.yaml"]) == ["a path that is not UTF-8"]
    assert messages_of([tmp_path]) == ["a path that is not UTF-8"]
    assert messages_of([tmp_path / "fine.yaml"], f"args.command={wrong}") == ["got 'args.command=\\udcff'"]
