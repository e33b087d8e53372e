"""The suites of `configs/tables` on a CPU, in seconds instead of days: a tiny model, short rows, two steps, a local eval task.

In: suites as they are. Out: the `--set` texts that scale one down, and folders with a small model in the place of each
that they name, so that a suite's own experiments, names and layout run. `python -m tests.support.scaled_tables` submits
suites and prints their tables.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.places import QUICKSTART
from tests.support.published_tables import LATER, MODERN, PUBLISHED, suite_files, twin_of
from tests.support.swift_suites import models_of, write_stand_ins
from tests.support.tiny_models import make_llama_folder, write_chats

NEEDS_MORE: Final = {
    "unsloth": "needs an environment with unsloth",
    "aqlm": "needs a GPU",
    "llamafactory-swift": "needs environments with LLaMA-Factory and ms-swift",
    "sharding": "compiles an optimizer for minutes where it offloads",
    **dict.fromkeys(LATER, "is refused by plan in this version"),
}
"""Suites that do not run on every machine."""
ROWS, OTHER_ROWS = "rows.jsonl", "others.jsonl"
_NUM_LAYERS: Final = 8
"""As many as llamapro and lisa need."""
# So much memory that two jobs run at a time on the test Slurm.
_CPU: Final = (
    "device=cpu",
    *(
        f"{section}.{setting}"
        for section in ("requirements", "eval_requirements")
        for setting in ("gpu=0", "mem_gb=4", "time=30m")
    ),
)
_TRAINING: Final = (
    *("dtype=fp32", "max_steps=2", "logging_steps=1", "val_dataset_sample=2", "eval_steps=2"),
    *("gradient_accumulation_steps=1", "dataloader_num_workers=0", "preprocess_num_proc=1"),
)
_EXPORT: Final = ("quant_n_samples=8", "quant_seqlen=64", "group_size=32")
_SCORED: Final = {
    "tuners-modern": "[{name: gsm8k, task: pig_latin}]",
    "awq": "[{name: gsm8k, task: pig_latin}]",
    "export-modern": "[{name: gsm8k, task: pig_latin}]",
    "few-shots": "[{name: gsm8k, task: pig_latin}, {name: gsm8k_1shot, task: pig_latin, num_fewshot: 1}]",
}
"""Suite -> its eval datasets with a local task in the place of the hub's."""


def demo_suites() -> list[Path]:
    """Return the suites that a CPU runs: those with models of today, and the published ones that need no twin."""
    files = [file for file in suite_files() if file.parent == MODERN or not twin_of(file).exists()]
    return [file for file in files if file.stem not in NEEDS_MORE]


def overrides(suite: Path, folder: Path) -> list[str]:
    """Return the `--set` texts that scale a suite down; nothing that it varies is among them.

    Args:
        suite: its file.
        folder: made by `write_inputs`.
    """
    document = yaml.safe_load(suite.read_text(encoding="utf-8"))
    cmd = document["cmd"]
    texts = list(_CPU)
    if cmd != "eval":
        texts.append(f"args.dataset={folder / ROWS}")
        varied = _varied(document)
        settings = _EXPORT if cmd == "export" else _TRAINING
        texts += [f"args.{setting}" for setting in settings if setting.partition("=")[0] not in varied]
    if "train_dataset_mix_ratio" in document["args"]:
        texts.append(f"args.train_dataset_mix_ds={folder / OTHER_ROWS}")
    if suite.stem in _SCORED:
        tasks = QUICKSTART / "tasks"
        texts += [f"eval_dataset={_SCORED[suite.stem]}", f"eval_args.include_path={tasks}", "eval_args.limit=2"]
        texts.append("eval_args.batch_size=2")
    return texts


def _varied(document: Mapping[str, Any]) -> set[str]:
    """Return the arguments that a suite's matrix or those of its experiments vary."""
    found: set[str] = set()
    for layer in (document, *document["experiment"]):
        matrix = layer.get("matrix", {})
        found |= {*matrix, *matrix.get("zip", {})}
    return found


@dataclass(frozen=True, slots=True)
class Inputs:
    """What scaled-down suites read."""

    folder: Path
    profile: Path
    """Of a cluster whose jobs find the models."""
    variables: Mapping[str, str]
    """Under which `hpcbench submit` finds them too."""


def write_inputs(folder: Path, suites: Sequence[Path]) -> Inputs:
    """Write rows, and a small model for each that the suites name."""
    folder.mkdir(parents=True, exist_ok=True)
    write_chats(folder / ROWS, count=24)
    write_chats(folder / OTHER_ROWS, count=48)
    plain = folder / "model"
    # Wide enough to be quantized in groups of 32.
    make_llama_folder(plain, num_layers=_NUM_LAYERS, width=128, inner=256)
    quantized: dict[tuple[str, int], Path] = {}

    def put(place: Path, how: Mapping[str, Any] | None) -> None:
        model = plain
        if how is not None:
            key = str(how["quant_method"]), int(how["bits"])
            if key not in quantized:
                quantized[key] = _quantize(folder, plain, *key)
            model = quantized[key]
        place.parent.mkdir(parents=True)
        place.symlink_to(model)

    variables = write_stand_ins(folder / "home", models_of(list(suites)), put)
    profile = folder / "scaled-down.yaml"
    profile.write_text("env:\n" + "".join(f"  {key}: {value}\n" for key, value in variables.items()))
    return Inputs(folder, profile, variables)


def _quantize(folder: Path, plain: Path, method: str, bits: int) -> Path:
    from tests.train.test_export import quantised

    return Path(quantised(folder / f"{method}-{bits}", plain, folder / ROWS, method, bits).output_model)


def submit_arguments(suite: Path, inputs: Inputs, *, save_dir: Path) -> list[str]:
    """Return the arguments of hpcbench that submit a suite scaled down."""
    sets = [word for text in overrides(suite, inputs.folder) for word in ("--set", text)]
    return ["submit", str(suite), "--cluster", str(inputs.profile), "--save-dir", str(save_dir), *sets]


def main() -> int:
    """Submit suites to the cluster at hand, wait for them, print their tables; 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="names of suites; none: all that run on a CPU")
    parser.add_argument("--save-dir", type=Path, default=Path("logs"))
    options = parser.parse_args()
    known = {file.stem: file for file in (*sorted(PUBLISHED.glob("*.yaml")), *sorted(MODERN.glob("*.yaml")))}
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"{unknown[0]}: not a suite; expected one of {', '.join(known)}")
    suites = [known[name] for name in options.names] or demo_suites()
    save_dir = options.save_dir.resolve()
    began = time.monotonic()
    # Before a model is quantized, which changes variables of this process.
    before = dict(os.environ)
    shutil.rmtree(save_dir / "inputs", ignore_errors=True)
    inputs = write_inputs(save_dir / "inputs", suites)
    environment = {**before, **inputs.variables}
    submits = [submit_arguments(suite, inputs, save_dir=save_dir) for suite in suites]
    # All go out before the first is waited for.
    codes = [_hpcbench(*arguments, environment=environment) for arguments in submits]
    codes += [_hpcbench(*arguments, "--wait", environment=environment) for arguments in submits]
    for suffix in (".md", ".html"):
        names = [suite.stem for suite in suites]
        output = str(save_dir / f"tables{suffix}")
        codes.append(_hpcbench("collect", *names, "--save-dir", str(save_dir), "-o", output, environment=environment))
    print(f"{len(suites)} suites in {(time.monotonic() - began) / 60:.0f} min")
    return int(any(codes))


def _hpcbench(*arguments: str, environment: Mapping[str, str]) -> int:
    return subprocess.run([sys.executable, "-m", "hpcbench", *arguments], check=False, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
