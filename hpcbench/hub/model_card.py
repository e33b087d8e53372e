"""The model card (README.md) of weights that go to a model hub.

In: a training's request and record. Out: Markdown with the hub's front matter. Pure. It states what was measured and
names files and folders by their last part only; the license is left to the user.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import yaml

from hpcbench.catalog.dataset_words import split_word
from hpcbench.catalog.datasets import DATASETS
from hpcbench.catalog.models import MODELS
from hpcbench.hub.repository import HUB_ARGUMENTS, repository_of
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.metrics import TrainMetrics
from hpcbench.schemas.record import Record
from hpcbench.schemas.request import JobRequest

_PACKAGES = ("torch", "transformers", "peft")
_NAMED_ABOVE = frozenset({"model_type", "model_id_or_path", "dataset", "val_dataset", "sft_type", "dataset_info"})
_LOADING = {
    "peft": 'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "{repository}")',
    "transformers": 'model = AutoModelForCausalLM.from_pretrained("{repository}")',
}


def public_base(args: SftArgs) -> tuple[str, bool]:
    """Return the base model's name for readers elsewhere, and whether it is an id on the hub that is pushed to."""
    path = args.model_id_or_path
    if path is not None:
        return (_short(path), False) if path.startswith("/") else (path, True)
    entry = MODELS.lookup(args.model_type or "")
    hub_id = None if entry is None else entry.id_on(args.hub)
    return (args.model_name, False) if hub_id is None else (hub_id, True)


def render_card(request: JobRequest, record: Record, *, library: str, checkpoint: str) -> str:
    """Return the model card."""
    args, metrics = request.args, record.metrics
    if args is None or not isinstance(metrics, TrainMetrics):
        raise TypeError("a model card is of a training")
    base, is_hub_id = public_base(args)
    repository = repository_of(args)
    head: dict[str, Any] = {
        **({"base_model": base} if is_hub_id else {}),
        "datasets": [hub_id for name in args.dataset if (hub_id := _dataset_id(name, args)) is not None],
        "library_name": library,
        "pipeline_tag": "text-generation",
        "tags": ["hpcbench", args.method],
    }
    front = yaml.safe_dump({key: value for key, value in head.items() if value}, sort_keys=True, allow_unicode=True)
    rows = (("Base model", base), ("Method", args.method), ("Checkpoint", checkpoint), *_facts(args, metrics))
    sections = [
        f"---\n{front}---",
        f"# {repository.rsplit('/', 1)[-1]}",
        f"{base}, fine-tuned by hpcbench {record.hpcbench_version} (experiment {record.suite}/{record.experiment}).",
        _table(("", ""), rows),
        "## Arguments\n\nWhat was set; all else is hpcbench's default.",
        _table(("argument", "value"), _arguments(request, args)),
    ]
    # Adapters of hpcbench's own have no loader in a public library.
    if library in _LOADING:
        names = "PeftModel" if library == "peft" else "AutoModelForCausalLM"
        imports = "from transformers import AutoModelForCausalLM\n" if library == "peft" else ""
        code = f"{imports}from {library} import {names}\n\n{_LOADING[library].format(base=base, repository=repository)}"
        sections.append(f"## Loading\n\n```python\n{code}\n```")
    else:
        text = f"These are an hpcbench adapter's weights ({args.method}) for the base model; hpcbench loads them."
        sections.append(f"## Loading\n\n{text}")
    packages = record.environment.get("packages") or {}
    versions = ", ".join(f"{name} {packages[name]}" for name in _PACKAGES if name in packages)
    sections += [f"Made with {versions}."] if versions else []
    licence = "None is stated here. The base model's and the data's licences hold; set `license` in the front matter."
    sections.append(f"## Licence\n\n{licence}")
    return "\n\n".join(sections) + "\n"


def _facts(args: SftArgs, metrics: TrainMetrics) -> list[tuple[str, str]]:
    """Return data and results as far as the record has them."""
    memory = [rank.reserved_gib for rank in metrics.memory if rank.reserved_gib is not None]
    tokens = metrics.tokens
    figures: list[tuple[str, object | None]] = [
        ("Data", ", ".join(_short(name) for name in args.dataset)),
        ("Training rows", metrics.num_train_rows),
        ("Validation rows", metrics.num_val_rows),
        ("Tokens per row (mean)", None if tokens is None else f"{tokens.mean:.1f}"),
        ("Steps", metrics.num_steps),
        ("Epochs", metrics.num_epochs),
        ("Global batch", metrics.global_batch_size),
        ("Trainable parameters", f"{metrics.parameters.trainable} of {metrics.parameters.total}"),
        ("train_loss", _round(metrics.train_loss)),
        ("eval_loss (best checkpoint)", _round(metrics.eval_loss)),
        ("eval_loss (last step)", _round(metrics.last_eval_loss)),
        ("ROUGE-L (best checkpoint)", _round(metrics.rouge_l)),
        ("Training time", None if metrics.train_time_s is None else f"{metrics.train_time_s:.0f} s"),
        ("GPU memory", None if not memory else " + ".join(f"{gib:.2f} GiB" for gib in memory)),
    ]
    return [(name, str(value)) for name, value in figures if value is not None]


def _arguments(request: JobRequest, args: SftArgs) -> list[tuple[str, str]]:
    values = args.model_dump(mode="json")
    found = []
    for name, source in sorted(request.source_of.items()):
        if source == "default" or name not in values or name in HUB_ARGUMENTS | _NAMED_ABOVE:
            continue
        value = values[name]
        shown = [_short(item) for item in value] if isinstance(value, list) else value
        found.append((name, _short(shown) if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)))
    return found


def _dataset_id(name: str, args: SftArgs) -> str | None:
    """Return a dataset's id on the hub that is pushed to, or None where it is a file or not known."""
    name = split_word(name).name
    if name.startswith("/") or args.dataset_info is not None:
        return None
    entry = DATASETS.lookup(name)
    if entry is None:
        return name if name.count("/") == 1 else None
    return entry.id_on(args.hub)


def _short(text: str) -> str:
    return text.rstrip("/").rsplit("/", 1)[-1] if text.startswith("/") else text


def _round(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"| {left} | {right} |" for left, right in (head, ("---", "---"))]
    return "\n".join([*lines, *(f"| {_cell(left)} | {_cell(right)} |" for left, right in rows)])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
