"""Saving, tried before the first step: what cannot be saved is found before it has cost a training.

In: a trainer with its model, the tokenizer. Out: nothing, or the error that would stop the first save. Weights of whole
models are not written for it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from hpcbench.errors import WorkerError
from hpcbench.worker.train.trainer import BenchTrainer


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
        elif trainer.is_deepspeed_enabled and isinstance(model, PeftModel):  # its engine, which saves, is not there yet
            model.save_pretrained(str(folder))
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
