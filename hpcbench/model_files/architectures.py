"""Which types of models the installed transformers loads by its own code, without importing it.

In: a model_type. Out: whether the tables of transformers have it, or that it is not installed here.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path
from typing import Final

_TABLE: Final = Path("models", "auto", "modeling_auto.py")
_TABLES: Final = ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES")


def unknown_to(model_type: str) -> str | None:
    """Return the transformers that has no code for this type, for example `transformers 5.23.0`.

    None where it has, and where no transformers is installed or its table is written in another way.
    """
    table = _read_table()
    if table is None or f'"{model_type}"' in table:
        return None
    return f"transformers {importlib.metadata.version('transformers')}"


@cache
def _read_table() -> str | None:
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        return None
    try:
        text = (Path(spec.origin).parent / _TABLE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    table = "".join(text.partition(f"{name} = ")[2].partition("\n)")[0] for name in _TABLES)
    return table if '"llama"' in table else None
