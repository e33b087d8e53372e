"""What the documents show exists: targets, links, paths, a suite, a profile. tests/slurm runs the README's commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from hpcbench.config.loading import load_suites
from hpcbench.schemas.cluster_profile import ClusterProfile
from tests.support.places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def yaml_block(after: str) -> str:
    """Return the first yaml block after a heading."""
    text = README.split(f"## {after}\n", 1)[1]
    return text.split("```yaml\n", 1)[1].split("```", 1)[0]


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`?make ([a-z][a-z-]+)`?", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_link_to_a_file_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "DECISIONS.md", "RESULTS.md"])
def test_every_path_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    paths = re.findall(r"(?<![\w/.])(?:hpcbench|tests|configs|templates)/[\w./-]*[\w/]", text)
    named = [path for path in paths if "NAME" not in path]
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_suite_of_the_readme_loads(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.jsonl").write_text('{"query": "q", "response": "r"}\n')
    file = tmp_path / "suite.yaml"
    file.write_text(yaml_block("A first suite"))
    [suite] = load_suites([file])
    assert [experiment.name for experiment in suite.experiments] == [
        "base",
        "lora-lora_rank=8",
        "lora-lora_rank=32",
        "full",
    ]


def test_the_matrix_of_the_readme_makes_three_variants_with_three_seeds_each(tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(yaml_block("Tuners, sweeps, repeats").replace("data/train.jsonl", "alpaca-en"))
    [suite] = load_suites([file])
    assert len(suite.experiments) == 9
    assert len({experiment.base_experiment for experiment in suite.experiments}) == 3


def test_the_profile_of_the_readme_loads() -> None:
    profile = ClusterProfile.model_validate(yaml.safe_load(yaml_block("A first run on a cluster")))
    assert profile.account == "lab-account"


def test_every_file_that_a_docstring_or_comment_names_exists() -> None:
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "hpcbench").rglob("*.py")]
    named = {
        (path.name, name)
        for path in (ROOT / "hpcbench").rglob("*.py")
        for name in re.findall(r"`([a-z_/]+\.py)`", path.read_text(encoding="utf-8"))
    }
    assert not [pair for pair in named if not any(f"/{file}".endswith(f"/{pair[1]}") for file in files)]
