"""Matrix and repeats: what is made, and what it is called."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcbench.config.loading import load_suites
from hpcbench.config.matrix import expand_matrix, variant_names
from hpcbench.errors import Problem
from hpcbench.schemas.suite import Experiment
from hpcbench.storage.located_yaml import Located, parse_yaml
from hpcbench.storage.paths import folder_name
from tests.support.model_folders import write_model
from tests.support.suite_writer import HEAD, load, refusal


def names(experiments: tuple[Experiment, ...]) -> list[str]:
    return [experiment.name for experiment in experiments]


def test_names_show_the_values_that_vary_as_they_were_written(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        HEAD + "experiment: [{name: lora, matrix: {lora_rank: [8, 16], learning_rate: [1e-4, 5e-5], seed: [7]}}]",
    )
    assert names(suite.experiments) == [
        "lora-lora_rank=8-learning_rate=1e-4",
        "lora-lora_rank=8-learning_rate=5e-5",
        "lora-lora_rank=16-learning_rate=1e-4",
        "lora-lora_rank=16-learning_rate=5e-5",
    ]
    last = suite.experiments[-1]
    assert last.args is not None
    assert (last.args.lora_rank, last.args.learning_rate, last.args.seed) == (16, 5e-5, 7)
    assert {last.source_of[name] for name in ("lora_rank", "learning_rate", "seed")} == {"matrix"}
    assert (last.source_of["model_type"], last.source_of["lora_alpha"]) == ("suite", "default")
    assert last.base_experiment is None


def test_zip_walks_lists_side_by_side_and_exclude_leaves_out(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        HEAD
        + """
matrix:
  use_dora: [false, true]
  zip: {lora_rank: [8, 16], lora_alpha: [16, 32]}
  exclude: [{use_dora: true, lora_rank: "16"}]
experiment: [{name: a}]
""",
    )
    assert names(suite.experiments) == [
        "a-use_dora=false-lora_rank=8-lora_alpha=16",
        "a-use_dora=false-lora_rank=16-lora_alpha=32",
        "a-use_dora=true-lora_rank=8-lora_alpha=16",
    ]


def test_dotted_keys_reach_other_sections(tmp_path: Path) -> None:
    suite = load(
        tmp_path, HEAD + "experiment: [{name: a, matrix: {requirements.gpu: [1, 2], env.OMP_NUM_THREADS: [4]}}]"
    )
    assert names(suite.experiments) == ["a-requirements.gpu=1", "a-requirements.gpu=2"]
    assert [experiment.requirements.gpu for experiment in suite.experiments] == [1, 2]
    assert [dict(experiment.env) for experiment in suite.experiments] == [{"OMP_NUM_THREADS": "4"}] * 2


def test_odd_values_get_tame_names(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        HEAD
        + """
experiment:
  - name: a
    matrix: {lora_target_modules: [[q_proj, v_proj], ALL], system: ["You are/ helpful; rm -rf", null]}
""",
    )
    assert names(suite.experiments) == [
        "a-lora_target_modules=q_proj+v_proj-system=_helpful_rm_-rf",
        "a-lora_target_modules=q_proj+v_proj-system=null",
        "a-lora_target_modules=ALL-system=_helpful_rm_-rf",
        "a-lora_target_modules=ALL-system=null",
    ]
    assert [e.args.system for e in suite.experiments if e.args] == ["You are/ helpful; rm -rf", None] * 2


def test_model_paths_are_named_by_their_last_part(tmp_path: Path) -> None:
    for model in ("x/small", "y/large"):
        write_model(tmp_path / model)
    suite = load(tmp_path, HEAD + "experiment: [{name: a, matrix: {model: [x/small, y/large]}}]")
    assert names(suite.experiments) == ["a-model=small", "a-model=large"]
    assert [e.args.model_id_or_path for e in suite.experiments if e.args] == [
        f"{tmp_path}/x/small",
        f"{tmp_path}/y/large",
    ]


def test_long_names_are_shortened_and_stay_different(tmp_path: Path) -> None:
    text = (
        HEAD + "experiment: [{name: NAME, matrix: {gradient_accumulation_steps: [1, 2], learning_rate: [1e-4, 5e-5]}}]"
    )
    suite = load(tmp_path, text.replace("NAME", "n" * 120))
    found = names(suite.experiments)
    assert len(set(found)) == 4
    assert all(len(name) == 128 and name.startswith("n" * 119 + "-") for name in found)
    assert found == names(load(tmp_path, text.replace("NAME", "n" * 120)).experiments)


def test_the_suites_matrix_leaves_baselines_alone(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        HEAD
        + """
matrix: {lora_rank: [8, 16]}
eval_dataset: gsm8k
repeats: 2
experiment:
  - {name: base, cmd: eval}
  - {name: own, matrix: {lora_alpha: [1, 2]}, repeats: 1}
  - {name: none, matrix: null, repeats: null}
  - {name: lora}
""",
    )
    assert names(suite.experiments) == [
        "base",
        "own-lora_alpha=1",
        "own-lora_alpha=2",
        "none",
        "lora-lora_rank=8-seed0",
        "lora-lora_rank=8-seed1",
        "lora-lora_rank=16-seed0",
        "lora-lora_rank=16-seed1",
    ]


def test_a_suite_of_baselines_may_vary_its_models(tmp_path: Path) -> None:
    text = "cmd: eval\neval_dataset: gsm8k\nmatrix: {model_id_or_path: [a/x, a/y]}\nexperiment: [{name: base}]"
    assert names(load(tmp_path, text).experiments) == ["base-model_id_or_path=x", "base-model_id_or_path=y"]


def test_repeats_vary_the_seed_only(tmp_path: Path) -> None:
    suite = load(tmp_path, HEAD + "repeats: '3'\nexperiment: [{name: lora, args: {seed: 5}}]")
    assert names(suite.experiments) == ["lora-seed0", "lora-seed1", "lora-seed2"]
    assert [
        (e.base_experiment, e.repeat, e.args.seed, e.args.dataset_split_seed) for e in suite.experiments if e.args
    ] == [
        ("lora", 0, 5, 42),
        ("lora", 1, 6, 42),
        ("lora", 2, 7, 42),
    ]


def test_set_loses_to_no_matrix_in_silence(tmp_path: Path) -> None:
    text = HEAD + "matrix: {lora_rank: [8, 16]}\nexperiment: [{name: a}]"
    assert refusal(tmp_path, text, "args.lora_rank=4") == (
        "--set: args.lora_rank: the matrix (line 3) varies `lora_rank`, which --set sets to one value"
    )
    assert names(load(tmp_path, text, "matrix={lora_alpha: [1, 2]}").experiments) == [
        "a-lora_alpha=1",
        "a-lora_alpha=2",
    ]
    assert names(load(tmp_path, text, "matrix=null").experiments) == ["a"]


VALUES = st.lists(
    st.integers(0, 99) | st.text("abc/ .é", min_size=1, max_size=4), min_size=1, max_size=4, unique_by=str
)


@settings(max_examples=60, deadline=None)
@given(
    axes=st.dictionaries(st.sampled_from(["lora_rank", "system", "env.A", "optim"]), VALUES, min_size=1, max_size=3),
    data=st.data(),
)
def test_the_count_is_the_product_less_the_excluded_and_names_are_unique(
    axes: dict[str, list[object]], data: st.DataObject
) -> None:
    cells = [dict(zip(axes, cell, strict=True)) for cell in itertools.product(*axes.values())]
    excluded = data.draw(st.lists(st.sampled_from(cells), max_size=min(3, len(cells) - 1), unique_by=str))
    problems: list[Problem] = []
    matrix = parse_yaml(json.dumps({**axes, "exclude": excluded}), file="s.yaml", problems=problems)
    assert matrix is not None
    variants = expand_matrix(matrix, resolve=_resolve, problems=problems)
    assert problems == []
    assert len(variants) == len(cells) - len(excluded)
    found = variant_names("base", variants)
    assert len({name.lower() for name in found}) == len(found)
    assert all(re.fullmatch(r"base[A-Za-z0-9._+=-]{0,60}", name) for name in found)


def _resolve(key: str, value: Located) -> dict[tuple[str, str], Located]:
    return {("args", key): value}


@pytest.mark.parametrize("values", ["8", "[]", "{a: 1}", "null"])
def test_values_must_be_lists(tmp_path: Path, values: str) -> None:
    assert "expected: a list of values" in refusal(
        tmp_path, HEAD + f"matrix: {{lora_rank: {values}}}\nexperiment: [{{name: a}}]"
    )


SWEEP = "matrix: {name: NAME, lora_rank: [8, 16], learning_rate: [1e-4, 5e-5]}\nexperiment: [{name: a}]"


def swept(folder: Path, template: str) -> list[str]:
    return names(load(folder, HEAD + SWEEP.replace("NAME", f"'{template}'")).experiments)


def test_a_template_says_what_variants_are_called(tmp_path: Path) -> None:
    expected = ["a-r8-lr1e-4", "a-r8-lr5e-5", "a-r16-lr1e-4", "a-r16-lr5e-5"]
    assert swept(tmp_path, "r{lora_rank}-lr{learning_rate}") == expected
    assert swept(tmp_path, "lr{learning_rate}.{name}_{lora_rank}")[0] == "lr1e-4.a_8"


def test_a_template_is_followed_by_the_number_of_the_repeat(tmp_path: Path) -> None:
    text = HEAD + "repeats: 2\nexperiment: [{name: a, matrix: {name: 'r{lora_rank}', lora_rank: [8, 16]}}]"
    assert names(load(tmp_path, text).experiments) == ["a-r8-seed0", "a-r8-seed1", "a-r16-seed0", "a-r16-seed1"]


def test_a_template_may_leave_out_what_varies_with_another_key(tmp_path: Path) -> None:
    matrix = "{name: 'r{lora_rank}-{requirements.gpu}', requirements.gpu: [1], zip: {lora_rank: [8, 16], lora_alpha: [1, 2]}}"
    suite = load(tmp_path, f"{HEAD}experiment: [{{name: a, matrix: {matrix}}}]")
    assert names(suite.experiments) == ["a-r8-1", "a-r16-1"]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (
            "r{lora_rnk}-lr{learning_rate}",
            (
                "{lora_rnk}: 'lora_rnk' does not vary in this matrix\n"
                "  expected: name, lora_rank, learning_rate\n  hint: did you mean 'lora_rank'?"
            ),
        ),
        (
            "r{lora_rank}",
            (
                "gives two experiments the name 'r8': lora_rank=8-learning_rate=1e-4 and lora_rank=8-learning_rate=5e-5\n"
                "  hint: {learning_rate} is not in it"
            ),
        ),
        ("r/{lora_rank}-{learning_rate}", "a name cannot hold '/'\n  expected: letters a-z A-Z, digits, . _ + = -,"),
        ("r{lora_rank}-{learning_rate", "a name cannot hold '{'\n"),
        (" ", "got ' '\n  expected: a template of names, for example name: r{lora_rank}-lr{learning_rate}"),
        ("x" * 130 + "{lora_rank}{learning_rate}", "makes a name of 137 characters\n  expected: letters a-z"),
    ],
)
def test_a_template_that_makes_no_names_is_refused(tmp_path: Path, template: str, text: str) -> None:
    found = refusal(tmp_path, HEAD + SWEEP.replace("NAME", f"'{template}'"))
    assert found.startswith("demo.yaml:3: matrix.name: " + text)


WIDE = "matrix: {gradient_accumulation_steps: [1, 2], learning_rate: [1e-4, 5e-5], lora_dropout_p: [0.1]}"
LONG = f"{HEAD}{WIDE}\nexperiment: [{{name: {'n' * 30}}}]"


def test_names_that_would_be_too_long_have_short_keys(tmp_path: Path) -> None:
    text = LONG.replace("[0.1]", "[0.1, 0.2]")
    assert names(load(tmp_path, text).experiments)[:2] == [
        f"{'n' * 30}-accum=1-lr=1e-4-dropout=0.1",
        f"{'n' * 30}-accum=1-lr=1e-4-dropout=0.2",
    ]
    repeated = LONG.replace("n" * 30, "n" * 11) + "\nrepeats: 2"
    assert names(load(tmp_path, repeated).experiments)[0] == f"{'n' * 11}-accum=1-lr=1e-4-seed0"


def test_what_has_results_keeps_the_name_that_it_was_shortened_to(tmp_path: Path) -> None:
    file = tmp_path / "demo.yaml"
    file.write_text(LONG.replace("[0.1]", "[0.1, 0.2]"), encoding="utf-8")
    whole = f"{'n' * 30}-gradient_accumulation_steps=1-learning_rate=1e-4-lora_dropout_p=0.1"
    first = folder_name(whole)
    (suite,) = load_suites([file], taken=lambda name: {first} if name == "demo" else frozenset())
    assert names(suite.experiments)[:2] == [first, f"{'n' * 30}-accum=1-lr=1e-4-dropout=0.2"]


def test_repeats_that_have_results_keep_the_names_that_they_were_shortened_to(tmp_path: Path) -> None:
    file = tmp_path / "demo.yaml"
    file.write_text(f"{HEAD}repeats: 2\nexperiment: [{{name: {'n' * 60}}}]", encoding="utf-8")
    old = folder_name(f"{'n' * 60}-seed0")
    (suite,) = load_suites([file], taken=lambda _: {old})
    assert names(suite.experiments) == [old, f"{'n' * 60}-seed1"]
    assert {experiment.base_experiment for experiment in suite.experiments} == {"n" * 60}
