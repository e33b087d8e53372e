"""Make the data and offline eval tasks of the SmolLM2 suites from local files.

In: the 4-class part of cls-fudan-news-zh as chat rows (`messages`), GSM8K as json lines (`question`, `answer`),
ARC-Easy as json lines with the fields of allenai/ai2_arc. Out: a folder with `fudan/`, `gsm8k/` and `tasks/`. Nothing
is downloaded.

    python configs/smollm2/prepare.py OUT --fudan TRAIN VAL --gsm8k TRAIN TEST --arc-easy TEST

The tasks are called like lm-eval's own (`gsm8k`, `arc_easy`) and include them, so prompts, filters and metrics are the
same; only the place of the data differs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

CLASSES = {"政治": "A", "财经": "B", "体育": "C", "计算机": "D"}
ARTICLE_CHARS = 80
"""Articles are cut here, when converting: keeping the last tokens at training time would cut the system prompt away."""
TEST_PER_CLASS = 40
"""Rows of each class that the eval task asks; the others of the file are for eval_loss and the best checkpoint."""


def main() -> None:
    """Write the folder that the suites' `--set` options point to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--fudan", nargs=2, type=Path, metavar=("TRAIN", "VAL"))
    parser.add_argument("--gsm8k", nargs=2, type=Path, metavar=("TRAIN", "TEST"))
    parser.add_argument("--arc-easy", type=Path, metavar="TEST")
    options = parser.parse_args()
    out = options.out.absolute()
    if options.fudan:
        write_fudan(*options.fudan, out)
    if options.gsm8k:
        train, test = map(read_rows, options.gsm8k)
        write_rows(out / "gsm8k" / "train.jsonl", train)
        write_task(out, builtin_task("gsm8k", "gsm8k/gsm8k.yaml"), {"train": train, "test": test})
    if options.arc_easy:
        task = builtin_task("arc_easy", "arc/arc_easy.yaml") | {"training_split": None, "validation_split": None}
        write_task(out, task, {"test": read_rows(options.arc_easy)})
    print(out)


def write_fudan(train: Path, val: Path, out: Path) -> None:
    """Write the news as single-letter classification: training and validation rows, and the eval task."""
    write_rows(out / "fudan" / "train.jsonl", map(convert_article, read_rows(train)))
    by_class: dict[str, list[dict[str, Any]]] = {}
    for row in map(convert_article, read_rows(val)):
        by_class.setdefault(row["messages"][-1]["content"], []).append(row)
    write_rows(out / "fudan" / "val.jsonl", [row for rows in by_class.values() for row in rows[TEST_PER_CLASS:]])
    task = {
        "task": "fudan4",
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{ messages[0].content }}",
        "doc_to_choice": list(CLASSES.values()),
        "doc_to_target": "{{ ['A', 'B', 'C', 'D'].index(messages[1].content) }}",
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    write_task(out, task, {"test": [row for rows in by_class.values() for row in rows[:TEST_PER_CLASS]]})


def convert_article(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose answer is one letter and whose article is short enough for a small model."""
    question, answer = row["messages"][1]["content"], row["messages"][-1]["content"]
    article = question.split("新闻\uff1a", 1)[1].rsplit("只输出", 1)[0].strip()
    letter = next(letter for name, letter in CLASSES.items() if name in answer)
    # The system prompt that names the classes is the suite's `args.system`, so that evals get the same one.
    return {
        "messages": [
            {"role": "user", "content": article[:ARTICLE_CHARS]},
            {"role": "assistant", "content": letter},
        ]
    }


def builtin_task(name: str, file: str) -> dict[str, Any]:
    """Return lm-eval's own task, without its place on the hub."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise SystemExit("lm-eval is not installed: pip install 'hpcbench-llm[eval]'")
    return {
        "include": str(Path(spec.origin).parent / "tasks" / file),
        "task": name,
        "dataset_name": None,
    }


def write_task(out: Path, task: Mapping[str, Any], splits: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write one lm-eval task file with its rows beside it, so that they are part of what identifies a result."""
    folder = out / "tasks"
    data_files = {}
    for split, rows in splits.items():
        file = folder / "rows" / f"{task['task']}-{split}.jsonl"
        write_rows(file, rows)
        data_files[split] = str(file)
    local = {"dataset_path": "json", "dataset_kwargs": {"data_files": data_files}}
    text = yaml.safe_dump({**task, **local}, allow_unicode=True, sort_keys=False)
    (folder / f"{task['task']}.yaml").write_text(text, encoding="utf-8")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a json lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as json lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
