"""Make the quickstart's data, tokenizer and pretrained tiny model; all of them are shipped, so this runs once.

In: nothing but the constants below. Out, beside this file or under ``--out``: ``train.jsonl``, ``val.jsonl`` and
``tasks/test.jsonl`` (pig latin of made-up words, as chats) and ``base/`` (an ordinary model folder of 0.33 M
parameters). The test rows lie with the eval task, so that the task's folder holds all that decides a score.

The base has read short string tasks (copy, reverse, upper ...), so that it knows how to spell, but no pig latin: LoRA
on random weights learns nothing, and a base that can do the task already leaves nothing to show (1 % of pig latin in
the mix, over 2,000 steps, makes it score 0.64). It sees no validation or test word. One thread and one seed: the same
machine makes the same bytes, another kind of CPU may round differently.

Usage: python make_quickstart.py [--out DIR] [--data-only]   (needs hpcbench-llm[worker]; about three minutes)
"""

from __future__ import annotations

import argparse
import json
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

logger = logging.getLogger(__name__)

DATA_SEED: Final = 20260101
PRETRAIN_SEED: Final = 20260101
SPLITS: Final = {"train": 2300, "val": 100, "test": 300}
EXAMPLE_WORD: Final = "street"
"""The word that the documentation shows: the first test row, hence never trained on."""

CLUSTERS: Final = "bl br ch cl cr dr fl fr gl gr pl pr sc sh sk sl sm sn sp st str sw th tr tw"
ONSETS: Final = (*"bcdfghjklmnprstvwz", *CLUSTERS.split())
NUCLEI: Final = (*"aeiouaeiou", "ai", "ea", "ee", "oa", "oo", "ou")
CODAS: Final = ("", "", "", *"bdgklmnprst", "ck", "ft", "lk", "nd", "ng", "nt", "rk", "sh", "st")
VOWELS: Final = frozenset("aeiou")

PRETRAIN_STEPS: Final = 2000
PRETRAIN_BATCH_SIZE: Final = 64
PRETRAIN_LEARNING_RATE: Final = 4e-3

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'][0] + '\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>a\n' }}{% endif %}"
)
"""ChatML with one-letter roles (s, u, a): a byte is a token here, so every letter of a role costs time."""

IGNORED_LABEL: Final = -100


def to_pig_latin(word: str) -> str:
    """Move the leading consonants to the end and add `ay`, or add `way` where a vowel leads.

    >>> to_pig_latin("street"), to_pig_latin("apple")
    ('eetstray', 'appleway')
    """
    if word[0] in VOWELS:
        return word + "way"
    onset = next((i for i, letter in enumerate(word) if letter in VOWELS), len(word))
    return word[onset:] + word[:onset] + "ay"


def rotate(word: str) -> str:
    """Move the first letter to the end."""
    return word[1:] + word[0]


STRING_TASKS: Final[dict[str, Callable[[str], str]]] = {
    "copy": lambda word: word,
    "reverse": lambda word: word[::-1],
    "upper": str.upper,
    "first": lambda word: word[0],
    "last": lambda word: word[-1],
    "double": lambda word: word + word,
    "tail": lambda word: word[1:],
    "rotate": rotate,
}


def make_word(rng: random.Random) -> str:
    """Draw one pronounceable word of one or two syllables; every fifth starts with a vowel."""
    syllables = 1 if rng.random() < 0.3 else 2
    word = "" if rng.random() < 0.2 else rng.choice(ONSETS)
    word += rng.choice(NUCLEI)
    for _ in range(syllables - 1):
        word += rng.choice(ONSETS) + rng.choice(NUCLEI)
    return word + rng.choice(CODAS)


def make_splits() -> dict[str, list[str]]:
    """Return the words of each split: unique, disjoint, 3 to 9 letters."""
    rng = random.Random(DATA_SEED)
    words: dict[str, None] = {EXAMPLE_WORD: None}
    while len(words) < sum(SPLITS.values()):
        word = make_word(rng)
        if 3 <= len(word) <= 9:
            words.setdefault(word)
    drawn = list(words)
    num_test, num_val = SPLITS["test"], SPLITS["val"]
    return {
        "test": drawn[:num_test],
        "val": drawn[num_test : num_test + num_val],
        "train": drawn[num_test + num_val :],
    }


def to_chat(task: str, word: str, answer: str) -> list[dict[str, str]]:
    """Return one question and its answer as chat messages."""
    return [
        {"role": "user", "content": f"{task}: {word}"},
        {"role": "assistant", "content": answer},
    ]


def write_data(splits: dict[str, list[str]], out_dir: Path) -> None:
    """Write each split as JSON lines of `{"messages": [...]}`."""
    files = {"train": "train.jsonl", "val": "val.jsonl", "test": "tasks/test.jsonl"}
    (out_dir / "tasks").mkdir(parents=True, exist_ok=True)
    for split, words in splits.items():
        rows = [{"messages": to_chat("pig latin", word, to_pig_latin(word))} for word in words]
        text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
        (out_dir / files[split]).write_text(text, encoding="utf-8")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer without merges: 256 bytes and three special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (START, END, PAD)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END,
        pad_token=PAD,
        unk_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """Return the untrained model: a Qwen2 of 0.33 M parameters."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(PRETRAIN_SEED)
    return Qwen2ForCausalLM(config)


def draw_pretraining_chats(splits: dict[str, list[str]]) -> Iterator[list[dict[str, str]]]:
    """Yield endless string tasks on made-up words, held-out words left out."""
    rng = random.Random(PRETRAIN_SEED + 1)
    held_out = {*splits["val"], *splits["test"]}
    names = list(STRING_TASKS)
    while True:
        word = make_word(rng)
        if word not in held_out:
            name = rng.choice(names)
            yield to_chat(name, word, STRING_TASKS[name](word))


def encode_batch(chats: list[list[dict[str, str]]], tokenizer: PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    """Tokenize chats, padded right; only the answer and its end token carry a label."""
    pad_id = tokenizer.pad_token_id
    rows: list[tuple[list[int], int]] = []
    for chat in chats:
        prompt = tokenizer.apply_chat_template(chat[:-1], add_generation_prompt=True, return_dict=False)
        full = tokenizer.apply_chat_template(chat, return_dict=False)
        if full[: len(prompt)] != prompt:
            msg = f"the prompt is not a prefix of the dialogue: {chat}"
            raise ValueError(msg)
        rows.append((full, len(prompt)))
    width = max(len(ids) for ids, _ in rows)
    padding = [width - len(ids) for ids, _ in rows]
    return {
        "input_ids": torch.tensor([ids + [pad_id] * n for (ids, _), n in zip(rows, padding, strict=True)]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * n for (ids, _), n in zip(rows, padding, strict=True)]),
        "labels": torch.tensor(
            [
                [IGNORED_LABEL] * start + ids[start:] + [IGNORED_LABEL] * n
                for (ids, start), n in zip(rows, padding, strict=True)
            ]
        ),
    }


def pretrain(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, splits: dict[str, list[str]]) -> None:
    """Teach the model the string tasks, in place: AdamW with linear decay to zero."""
    chats = draw_pretraining_chats(splits)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PRETRAIN_LEARNING_RATE, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50) * (1 - step / PRETRAIN_STEPS)
    )
    model.train()
    for step in range(1, PRETRAIN_STEPS + 1):
        batch = encode_batch([next(chats) for _ in range(PRETRAIN_BATCH_SIZE)], tokenizer)
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            logger.info("step %d of %d, loss %.4f", step, PRETRAIN_STEPS, loss.item())


def main() -> None:
    """Write everything under `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    parser.add_argument("--data-only", action="store_true", help="leave the model as it is")
    args = parser.parse_args()
    out_dir: Path = args.out
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)

    splits = make_splits()
    write_data(splits, out_dir)
    if args.data_only:
        return
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    pretrain(model, tokenizer, splits)
    base_dir = out_dir / "base"
    model.to(torch.bfloat16).save_pretrained(base_dir)
    tokenizer.save_pretrained(base_dir, save_jinja_files=False)
    logger.info("%s: %.3f M parameters", base_dir, model.num_parameters() / 1e6)


if __name__ == "__main__":
    main()
