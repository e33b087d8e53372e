"""The suites of `tests/suites`, written in the words of each SWIFT release, and small models in the place of theirs.

A stand-in lies in a Hugging Face cache under the id that the catalog gives a name, so that suites are read unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from hpcbench.catalog.files import _read
from hpcbench.catalog.models import MODELS
from tests.support.places import ROOT

SUITES: Final = ROOT / "tests" / "suites"
ANSWER_ROWS: Final = 24
QUANTIZED: Final[Mapping[str, Mapping[str, Any]]] = {
    "gptq-int4": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True},
    "gptq-int8": {"quant_method": "gptq", "bits": 8, "group_size": 128, "desc_act": False, "sym": True},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True},
    "aqlm": {"quant_method": "aqlm", "in_group_size": 8, "out_group_size": 1, "num_codebooks": 1},
}
"""Configurations of quantised weights, by the form of the weights."""
_FORMS: Final = {"-int4": "gptq-int4", "-int8": "gptq-int8", "-awq": "awq", "-1x16": "aqlm"}

_MODEL_KEYS: Final = ("model_type", "model", "model_id_or_path")

MakeModel = Callable[[Path, Mapping[str, Any] | None], object]
"""Writes a model into a folder; gets the configuration of quantised weights, or None for plain ones."""


def suite_files() -> list[Path]:
    """Return the suites, by release."""
    return sorted(file for file in SUITES.glob("*/*") if file.suffix in {".json", ".yaml"})


def models_of(files: list[Path]) -> list[str]:
    """Return the names and ids of the models that suites name, in a matrix too."""
    found: set[str] = set()
    for file in files:
        found |= _models_in(yaml.safe_load(file.read_text(encoding="utf-8")))
    return sorted(found)


def _models_in(value: object) -> set[str]:
    if isinstance(value, list):
        return {name for item in value for name in _models_in(item)}
    if not isinstance(value, dict):
        return set()
    found = {name for key, inner in value.items() if key not in _MODEL_KEYS for name in _models_in(inner)}
    named = [value[key] for key in _MODEL_KEYS if key in value]
    return found | {name for names in named for name in (names if isinstance(names, list) else [names])}


def write_stand_ins(home: Path, models: list[str], make_model: MakeModel) -> dict[str, str]:
    """Put a small model in the place of each, and return the variables under which it is found.

    A name of the catalog whose own weights this version cannot load gets an entry whose weights it can.
    """
    entries: dict[str, Any] = {}
    for name in models:
        form = next((QUANTIZED[form] for end, form in _FORMS.items() if name.endswith(end)), None)
        if (entry := MODELS.lookup(name)) is None:
            hub_id = name
        else:
            hub_id = f"stand-ins/{name}"
            changes = {"huggingface": hub_id, "modelscope": None, "cannot_run": None, "needs_remote_code": False}
            entries[name] = {**entry.model_dump(mode="json"), **changes}
        repository = home / "hub" / f"models--{hub_id.replace('/', '--')}"
        make_model(repository / "snapshots" / "0", form)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0")
    folder = home / "config" / "hpcbench"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "models.yaml").write_text(yaml.safe_dump(entries))
    _read.cache_clear()  # tests of one process change the user's files
    return {"HF_HOME": str(home), "XDG_CONFIG_HOME": str(home / "config")}
