"""A model's generation config, made such that transformers saves it.

In: a loaded model. Out: what was taken out of its generation config, if anything. It saves nothing.
"""

from __future__ import annotations

from typing import Any, Final

from transformers import GenerationConfig, PreTrainedModel

_SAMPLING: Final = ("temperature", "top_p", "min_p", "top_h", "top_k", "typical_p", "epsilon_cutoff", "eta_cutoff")
_BEAMS: Final = ("early_stopping", "length_penalty")
_TOKENS: Final = ("bos_token_id", "eos_token_id", "pad_token_id")


def repair_generation_config(model: Any) -> str | None:
    """Let transformers save a whole model's generation config; return what was taken out of it, or None.

    Published configs hold settings that contradict each other, which transformers loads and, once the Trainer has set
    their special tokens, refuses to save.
    """
    config = getattr(model, "generation_config", None)
    if not isinstance(model, PreTrainedModel) or config is None or (problem := _find_problem(config)) is None:
        return None
    left_out = []
    if isinstance(config.pad_token_id, int) and config.pad_token_id < 0:
        config.pad_token_id = None
        left_out.append("pad_token_id")
    defaults = GenerationConfig()
    for name in _unread(config):
        if _find_problem(config) is None:
            break
        if getattr(config, name, None) != getattr(defaults, name, None):
            setattr(config, name, getattr(defaults, name, None))
            left_out.append(name)
    if _find_problem(config) is None:
        return f"transformers cannot save it; saved without {', '.join(left_out)}, which greedy generation does not use"
    model.generation_config = GenerationConfig(**{name: getattr(config, name, None) for name in _TOKENS})
    return f"transformers cannot save it ({problem}); saved with the special tokens alone"


def _unread(config: GenerationConfig) -> list[str]:
    """Return the settings that generation by this config does not read."""
    if config.do_sample:
        return []
    has_contrast = getattr(config, "penalty_alpha", None) is not None  # contrastive search reads top_k
    names = [name for name in _SAMPLING if name != "top_k" or not has_contrast]
    return [*names, *(_BEAMS if config.num_beams in {None, 1} else ())]


def _find_problem(config: GenerationConfig) -> str | None:
    try:
        config.validate(strict=True)
    # What a file holds is compared and looked up as it is.
    except (ValueError, TypeError, AttributeError) as error:
        return " ".join(str(error).split())
    return None
