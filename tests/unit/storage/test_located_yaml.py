"""YAML with lines: what is read, where it stands, and what hostile text does."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcbench.errors import Problem
from hpcbench.storage.located_yaml import MAX_BYTES, Located, parse_yaml, read_yaml, resolve_scalar, to_plain


def parse(text: str) -> tuple[Located | None, list[str]]:
    problems: list[Problem] = []
    value = parse_yaml(text, file="s.yaml", problems=problems)
    return value, [problem.render() for problem in problems]


def child(value: Located | None, *path: str) -> Located:
    for name in path:
        assert value is not None
        assert value.mapping is not None
        value = value.mapping[name]
    assert value is not None
    return value


def test_values_know_their_line_path_and_source_text() -> None:
    value, problems = parse("a:\n  b: 0123\n  c:\n    - name: x\n      d: yes\n    - 1.10\n")
    assert problems == []
    assert (child(value, "a").line, child(value, "a", "b").line, child(value, "a", "b").raw) == (1, 2, "0123")
    items = child(value, "a", "c").items
    assert items is not None
    assert (items[0].path, items[0].line) == ("a.c[x]", 4)
    assert (child(items[0], "d").path, child(items[0], "d").value, child(items[0], "d").raw) == (
        "a.c[x].d",
        True,
        "yes",
    )
    assert (items[1].path, items[1].raw) == ("a.c[1]", "1.10")


def test_numbers_with_a_bare_exponent_are_numbers() -> None:
    value, _ = parse("[5e-5, 1E3, 1.5e+2, e5, 5e, '5e-5']")
    assert value is not None
    assert to_plain(value) == [5e-5, 1000.0, 150.0, "e5", "5e", "5e-5"]


def test_misread_numbers_stay_text_in_free_values() -> None:
    value, _ = parse("[0123, '1:30:00', 1:30:00, 0, 10, 0x10, 2024-01-02]")
    assert value is not None
    assert to_plain(value) == ["0123", "1:30:00", "1:30:00", 0, 10, 16, "2024-01-02"]


def test_keys_are_names_whatever_yaml_makes_of_them() -> None:
    value, _ = parse("on: 1\n0123: 2\n1.10: 3\nnull: 4\n")
    assert value is not None
    assert to_plain(value) == {"on": 1, "0123": 2, "1.10": 3, "null": 4}


def test_merge_keys_bring_in_what_is_not_given() -> None:
    value, problems = parse("base: &b {x: 1, y: 2}\nown: {<<: *b, y: 3}\nboth: {<<: [*b, {z: 9, x: 8}]}\n")
    assert problems == []
    assert value is not None
    assert to_plain(value) == {"base": {"x": 1, "y": 2}, "own": {"x": 1, "y": 3}, "both": {"x": 1, "y": 2, "z": 9}}


def test_json_surrogate_pairs_are_one_character() -> None:
    value, problems = parse(r'{"a": "\ud83d\ude00"}')
    assert problems == []
    assert child(value, "a").value == "\U0001f600"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "s.yaml: empty"),
        ("a: 1\na: 2\n", "s.yaml:2: a: given twice; first on line 1"),
        ("a: 1\n---\nb: 2\n", "s.yaml:2: not valid YAML: expected a single document in the stream, but found another document"),
        ("a: {b: 1\n", "s.yaml:2: not valid YAML: while parsing a flow mapping, expected ',' or '}', but got '<stream end>'"),
        ("a: *x\n", "s.yaml:1: not valid YAML: found undefined alias 'x'"),
        ("a: !!python/object/apply:os.system [ls]", "s.yaml:1: a: YAML tag '!!python/object/apply:os.system' is not allowed"),
        ("a: !include x", "s.yaml:1: a: YAML tag '!include' is not allowed"),
        ("a: !!binary aGk=", "s.yaml:1: a: YAML tag '!!binary' is not allowed"),
        ("? [a, b]\n: 1\n", "s.yaml:1: a key must be a name"),
        ("a: .nan", "s.yaml:1: a: '.nan' is not a finite number"),
        ("a: 1e999", "s.yaml:1: a: '1e999' is not a finite number"),
        ("a: !!int x", "s.yaml:1: a: 'x' cannot be read as int\n  hint: quote it"),
        (r'a: "\ud83d"', "s.yaml:1: a: half a surrogate pair, which is not a character"),
        (r'a: "\0"', r"s.yaml:1: a: control character in '\x00'"),
        ("a: \x00", "s.yaml:1: not text: character #x0000 is not allowed"),
        ("a: &a [*a]", "s.yaml: aliases (&x, *x) that blow up to more than a suite can hold"),
        ("a: {<<: 3}", "s.yaml:1: a: `<<` takes a mapping"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_a_problem(text: str, message: str) -> None:
    assert parse(text)[1] == [message]


def test_a_billion_laughs_are_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert parse("\n".join(lines))[1] == [
        "s.yaml: aliases (&x, *x) that blow up to more than a suite can hold"
    ]  # fmt: skip
    merges = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 12))]
    assert "blow up" in parse("\n".join(merges))[1][0]


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000, "[" * 60 + "]" * 60])
def test_deep_nesting_is_refused(text: str) -> None:
    assert "nested deeper than 40 levels" in parse(text)[1][0]


def test_files_that_are_no_text(tmp_path: Path) -> None:
    def read(content: bytes, name: str = "s.yaml") -> tuple[object, list[str]]:
        (tmp_path / name).write_bytes(content)
        problems: list[Problem] = []
        value = read_yaml(tmp_path / name, file="s.yaml", problems=problems)
        return None if value is None else to_plain(value), [problem.render() for problem in problems]

    assert read(b"a: \xff\xfe") == (None, ["s.yaml: not UTF-8 text (byte 3)\n  hint: save it as UTF-8"])
    assert read(b"a" * (MAX_BYTES + 1)) == (None, ["s.yaml: larger than 2 MB"])
    assert read(b"\xef\xbb\xbfa: 1") == ({"a": 1}, [])
    assert read(b'{\n\t"a":\t[1,\n\t2]}', "s.json") == ({"a": [1, 2]}, [])
    problems: list[Problem] = []
    assert read_yaml(tmp_path, file="here", problems=problems) is None
    assert [problem.render() for problem in problems] == ["here: cannot be read: Is a directory"]


def test_one_scalar_is_taken_whatever_signs_it_holds() -> None:
    found = {
        text: resolve_scalar(text, file="--set", path="x").value
        for text in ("8", "1e-4", "yes", "null", "a: b #c", "@x", "*y")
    }
    assert found == {"8": 8, "1e-4": 1e-4, "yes": True, "null": None, "a: b #c": "a: b #c", "@x": "@x", "*y": "*y"}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text("abcxyz 0123456789.:-_#", max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz_", min_size=1, max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(PLAIN)
def test_reads_what_safe_load_reads(value: object) -> None:
    found, problems = parse(yaml.safe_dump(value))
    assert problems == []
    assert found is not None
    assert to_plain(found) == value


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80) | st.text("{}[]:-,&*!|>'\"%@#? \n\tab01", max_size=60))
def test_any_text_gives_a_value_or_problems(text: str) -> None:
    value, problems = parse(text)
    assert value is not None or problems


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=80))
def test_any_bytes_give_a_value_or_problems(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_bytes(content)
    problems: list[Problem] = []
    assert read_yaml(path, file="s.yaml", problems=problems) is not None or problems
