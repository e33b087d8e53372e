"""Saving, tried before the first step: what cannot be saved is found before it has cost a training.

In: a prepared model and its tokenizer. Out: a generation config that transformers saves, and what was taken out of it;
an error for everything else that would stop the first save. Weights of whole models are not written for it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import torch
from transformers import GenerationConfig, PreTrainedModel

from hpcbench.errors import WorkerError
from hpcbench.worker.train.trainer import BenchTrainer

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


def try_saving(trainer: BenchTrainer, tokenizer: Any, folder: Path) -> None:
    """Save into a folder what a checkpoint has besides a whole model's weights, then remove it.

    Raises:
        WorkerError: something of it cannot be saved.
    """
    shutil.rmtree(folder, ignore_errors=True)
    model = trainer.model
    try:
        if isinstance(model, PreTrainedModel) and not trainer.run.tuner.saved_arguments:
            model.save_pretrained(folder, state_dict={})
            tokenizer.save_pretrained(folder)
        else:
            trainer.save_model(str(folder))  # an adapter is small, and its weights are a part of the test
    except torch.cuda.OutOfMemoryError:  # a RuntimeError, and nothing that the model's files could correct
        raise
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, RuntimeError) as error:
        raise WorkerError(
            f"the model cannot be saved, so nothing was trained: {' '.join(str(error).split())}",
            hint="correct the model's config.json, generation_config.json or tokenizer files, or set save_strategy: no",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
