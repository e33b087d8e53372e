"""A look at a local model's configuration, so that one that cannot be trained here never waits for a GPU.

In: a model folder. Out: why it is refused, or None. It reads `config.json` alone and imports no model library.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hpcbench.storage.json_files import read_json

MEDIA_KEYS: Final = ("vision_config", "visual", "audio_config", "speech_config")
"""Parts of a configuration that only models of images or sound have (`visual` is Qwen-VL's)."""


def find_media(folder: Path) -> str | None:
    """Return the part of a model's configuration that is for images or sound, or None."""
    config = read_json(folder / "config.json") or {}
    return next((key for key in MEDIA_KEYS if isinstance(config.get(key), dict)), None)
