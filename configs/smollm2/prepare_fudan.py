"""Make the four-class news data of `smollm2_fudan.yaml` from chats about cls-fudan-news-zh.

In: two files of chat-format JSON lines, training and validation, whose user message holds an article and whose
assistant message holds its class (政治, 财经, 体育 or 计算机, in any wrapping such as `\\boxed{...}`). Out, in one folder:

    train.jsonl           the training file's rows
    val.jsonl             half of the validation file's rows of each class: eval_loss and the best checkpoint
    tasks/fudan4.jsonl    the other half: the eval task's rows
    tasks/fudan4.yaml     the eval task, tasks/local_data.py its loader

A row keeps the first 80 characters of its article, and its answer is one letter. Both are for speed on a CPU: longer
prompts train slower, and an eval task whose choices are single tokens needs one forward pass a row instead of four.
The text is cut here because a training's `max_length` cuts from the front, which would take away the system prompt.

Usage: python prepare_fudan.py --train sft_train.jsonl --val val.jsonl [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Final, TypedDict

HERE: Final = Path(__file__).resolve().parent
LOADER: Final = HERE.parent / "quickstart" / "tasks" / "local_data.py"

LETTER_OF: Final = {"政治": "A", "财经": "B", "体育": "C", "计算机": "D"}
"""In the order in which `args.system` of the suite names them."""

NUM_CHARACTERS: Final = 80
ARTICLE: Final = re.compile(r"新闻：(?P<article>.*?)(?:\n\n只输出[^\n]*)?$", re.DOTALL)


class Message(TypedDict):
    """One message of a chat."""

    role: str
    content: str


class Row(TypedDict):
    """One chat: the beginning of an article and its letter."""

    messages: list[Message]


def convert_row(messages: list[Message]) -> Row:
    """Return the chat about one article with a short question and a letter as answer.

    Raises:
        ValueError: a message is missing, or the answer names none or several of the classes.
    """
    text_of = {message["role"]: message["content"] for message in messages}
    if not {"user", "assistant"} <= text_of.keys():
        msg = f"expected a user and an assistant message, got {sorted(text_of)}"
        raise ValueError(msg)
    letters = [letter for name, letter in LETTER_OF.items() if name in text_of["assistant"]]
    if len(letters) != 1:
        msg = f"expected one of {', '.join(LETTER_OF)} in the answer, got {text_of['assistant']!r}"
        raise ValueError(msg)
    found = ARTICLE.search(text_of["user"])
    article = found["article"] if found else text_of["user"]
    return {
        "messages": [
            {"role": "user", "content": article.strip()[:NUM_CHARACTERS]},
            {"role": "assistant", "content": letters[0]},
        ]
    }


def halve_by_class(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Deal the rows of each letter in turn to two halves, in their order."""
    halves: tuple[list[Row], list[Row]] = ([], [])
    num_seen = dict.fromkeys(LETTER_OF.values(), 0)
    for row in rows:
        letter = row["messages"][-1]["content"]
        halves[num_seen[letter] % 2].append(row)
        num_seen[letter] += 1
    return halves


def read_rows(path: Path) -> list[Row]:
    """Read chat-format JSON lines and convert them.

    Raises:
        ValueError: a row cannot be converted; the message names its line.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            try:
                rows.append(convert_row(json.loads(line)["messages"]))
            except (KeyError, ValueError) as error:
                msg = f"{path}:{number}: {error}"
                raise ValueError(msg) from error
    return rows


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write JSON lines, Chinese as it is."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def main() -> None:
    """Convert both files into `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="chat-format JSON lines to train on")
    parser.add_argument("--val", type=Path, required=True, help="chat-format JSON lines to validate and test on")
    parser.add_argument("--out", type=Path, default=HERE / "data" / "fudan4", help="folder to write to")
    args = parser.parse_args()
    out_dir: Path = args.out
    tasks_dir = out_dir / "tasks"
    tasks_dir.mkdir(parents=True, exist_ok=True)

    val_rows, test_rows = halve_by_class(read_rows(args.val))
    for name, rows in (
        ("train.jsonl", read_rows(args.train)),
        ("val.jsonl", val_rows),
        ("tasks/fudan4.jsonl", test_rows),
    ):
        write_rows(out_dir / name, rows)
        print(f"{out_dir / name}: {len(rows)} rows")
    for source in (HERE / "tasks" / "fudan4.yaml", LOADER):
        shutil.copyfile(source, tasks_dir / source.name)


if __name__ == "__main__":
    main()
