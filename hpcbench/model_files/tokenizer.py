"""The tokenizer of a model folder, by its files: ids of its special tokens, its chat templates.

In: a folder. Out: what its JSON says. Of tokenizer.json, which may have tens of megabytes, the list of added tokens at
its beginning is read, and the rest only for a token that is not among them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hpcbench.model_files.weights import ModelFileError, check_lfs

TOKENIZER: Final = "tokenizer.json"
_CONFIG: Final = "tokenizer_config.json"
_VOCABULARIES: Final = (
    *(TOKENIZER, "tokenizer.model", "vocab.json", "vocab.txt", "vocab.model", "spiece.model", "tekken.json"),
    *("sentencepiece.bpe.model", "sentencepiece.model", "tokenizer.model.v3"),
)
"""Files that hold a vocabulary; a tokenizer of code from its folder (`auto_map`) may have others."""
SPECIAL_TOKENS: Final = ("eos_token", "pad_token")
"""Those that every batch may hold: answers end with one, rows are filled up with the other."""
DEFAULT: Final = "default"
_HEAD_BYTES: Final = 1 << 20
_ADDED: Final = '"added_tokens"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """What a model folder's tokenizer is."""

    ids: Mapping[str, int] = field(default_factory=dict)
    """Ids of `SPECIAL_TOKENS`, as far as files say: of one that the vocabulary lacks the lowest that it can get."""
    tokens: Mapping[str, str] = field(default_factory=dict)
    """Texts of all special tokens, by the names that templates have for them."""
    added: frozenset[str] = frozenset()
    """Those of `SPECIAL_TOKENS` that the vocabulary lacks."""
    templates: Mapping[str, str] | None = None
    """Chat templates by name, a single one as `default`; None where it is not known whether there is one."""


def read_tokenizer(folder: Path) -> Tokenizer:
    """Return what the folder's files say of its tokenizer.

    Raises:
        ModelFileError: there is none, or a file of it cannot be used.
    """
    config = read_object(folder / _CONFIG)
    found = [folder / name for name in _VOCABULARIES if (folder / name).is_file()]
    found += folder.glob("*.tiktoken")
    if not found and "auto_map" not in config:
        raise ModelFileError(
            f"{folder} holds no tokenizer", hint=f"transformers looks for {TOKENIZER} or tokenizer.model, for example"
        )
    for path in found:
        check_lfs(path)
    named = {**read_object(folder / "special_tokens_map.json"), **config}
    texts = {name: _text_of(token) for name, token in named.items() if name.endswith("_token")}
    tokens = {name: text for name, text in texts.items() if text is not None}
    ids, added = _find_ids(folder, config, {name: tokens[name] for name in SPECIAL_TOKENS if name in tokens})
    return Tokenizer(ids=ids, tokens=tokens, added=added, templates=_find_templates(folder, config))


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file, empty where there is no file.

    Raises:
        ModelFileError: it is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        check_lfs(path)
        raise ModelFileError(f"{path} is not JSON: {error}", hint="download it again") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path} is not a JSON object", hint="download it again")
    return value


def _text_of(token: object) -> str | None:
    """Return the text of a token, which is written as such or with its options."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _find_ids(
    folder: Path, config: Mapping[str, Any], tokens: Mapping[str, str]
) -> tuple[dict[str, int], frozenset[str]]:
    """Return the ids of special tokens, and which of them are in no file."""
    known: dict[str, int] = {}
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        known |= {text: int(id_) for id_, token in decoder.items() if (text := _text_of(token)) and id_.isdecimal()}
    known |= {text: id_ for text, id_ in read_object(folder / "added_tokens.json").items() if isinstance(id_, int)}
    path = folder / TOKENIZER
    if path.is_file() and not known.keys() >= set(tokens.values()):
        known |= _read_added(path)
    ids = {name: known[text] for name, text in tokens.items() if text in known}
    if len(ids) == len(tokens) or not path.is_file():
        return ids, frozenset()
    whole = _read_vocabulary(path)
    if not whole:
        return ids, frozenset()
    # Of a token that it lacks transformers makes the next id, or a higher one where it adds others before.
    added = frozenset(name for name, text in tokens.items() if text not in whole)
    return {name: whole.get(text, len(whole)) for name, text in tokens.items()}, added


def _read_added(path: Path) -> dict[str, int]:
    """Return the ids of added tokens, which stand before all that is long."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES).decode("utf-8", errors="ignore")
    place = head.find(_ADDED)
    start = head.find("[", place)
    if place < 0 or start < 0:
        return {}
    try:
        entries, _ = json.JSONDecoder().raw_decode(head, start)
    except ValueError:
        return {}
    return _ids_of(entries)


def _ids_of(entries: object) -> dict[str, int]:
    if not isinstance(entries, list):
        return {}
    pairs = [(entry.get("content"), entry.get("id")) for entry in entries if isinstance(entry, dict)]
    return {text: id_ for text, id_ in pairs if isinstance(text, str) and isinstance(id_, int)}


def _read_vocabulary(path: Path) -> dict[str, int]:
    """Return the ids of all tokens, none where they are written in another way."""
    whole = read_object(path)
    model = whole.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):  # Unigram: [piece, score] by id
        vocabulary = {str(entry[0]): id_ for id_, entry in enumerate(vocabulary) if isinstance(entry, list) and entry}
    if not isinstance(vocabulary, dict) or not all(isinstance(id_, int) for id_ in vocabulary.values()):
        return {}
    return {**vocabulary, **_ids_of(whole.get("added_tokens"))}


def _find_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    files = {path.stem: path for path in (folder / "additional_chat_templates").glob("*.jinja")}
    if (folder / "chat_template.jinja").is_file():
        files[DEFAULT] = folder / "chat_template.jinja"
    if files:  # they win over what the configuration holds
        return {name: _read_text(path) for name, path in files.items()}
    # Processors of transformers 4 have theirs in a file of their own.
    written = config.get("chat_template") or read_object(folder / "chat_template.json").get("chat_template")
    if isinstance(written, list):
        entries = [entry for entry in written if isinstance(entry, dict)]
        return {str(entry.get("name")): str(entry.get("template", "")) for entry in entries}
    return {DEFAULT: written} if isinstance(written, str) else {}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        check_lfs(path)
        raise ModelFileError(f"{path} cannot be read: {error}", hint="download it again") from error
