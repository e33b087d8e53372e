"""Arguments of the training loop, and of the answers that it may generate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hpcbench.schemas.arguments.base import (
    Arguments,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)


class TrainingArgs(Arguments):
    """How long and how fast is trained, and what is written on the way."""

    seed: int = 42
    """Seed of everything random except the split; rank r uses seed + r for dropout, as in ms-swift."""
    num_train_epochs: PositiveFloat = 1.0
    """Passes over the training rows; max_steps overrides it."""
    max_steps: int = -1
    """Optimizer steps; 1 or more overrides num_train_epochs, -1 does not."""
    optim: str = "adamw_torch"
    """Optimizer, by its name in transformers' TrainingArguments."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate; None is 2e-5 for full (galore and lisa are full) and 1e-4 for every other method."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay, per unit of learning rate and optimizer step."""
    batch_size: PositiveInt = 1
    """Samples per rank and forward pass."""
    eval_batch_size: PositiveInt | None = None
    """Samples per rank in an evaluation; None is batch_size, and 1 for generating answers."""
    gradient_accumulation_steps: PositiveInt = 16
    """Forward passes per optimizer step; the global batch is batch_size x this x ddp samples."""
    max_grad_norm: NonNegativeFloat = 1.0
    """L2 norm that the gradient is clipped to; 0 never clips."""
    lr_scheduler_type: str = "cosine"
    """Learning rate schedule, by its name in transformers, for example linear or constant."""
    warmup_ratio: Fraction = 0.05
    """Part of all steps over which the learning rate rises."""
    predict_with_generate: bool = False
    """Also generate answers to the validation prompts at each evaluation and record their mean ROUGE-L."""
    max_new_tokens: PositiveInt = 1024
    """Longest generated answer in tokens; this and the next five only with predict_with_generate."""
    do_sample: bool = True
    """Sample answers; False takes the most likely token each time."""
    temperature: PositiveFloat = 0.9
    """Divides the logits before sampling; below 1 favours likely tokens."""
    top_k: NonNegativeInt = 20
    """Number of most likely tokens to sample from; 0 is all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Total probability of the most likely tokens to sample from."""
    repetition_penalty: PositiveFloat = 1.0
    """Divides the logits of tokens that already occurred; 1 changes nothing."""
    eval_steps: PositiveInt = 50
    """Optimizer steps between two evaluations on the validation rows; the last step is always evaluated."""
    save_steps: PositiveInt | None = None
    """Optimizer steps between two checkpoints; None is eval_steps."""
    save_strategy: Literal["steps", "no"] = "steps"
    """no keeps no checkpoint, so nothing can be evaluated afterwards."""
    save_total_limit: int = 2
    """2 keeps the best and the last checkpoint, -1 keeps all."""
    only_save_model: bool | None = None
    """Whether finished checkpoints hold weights only; None is True for full, False for lora."""
    logging_steps: PositiveInt = 5
    """Optimizer steps between two lines of the log."""
    dataloader_num_workers: NonNegativeInt = 1
    """Processes per rank that make batches; 0 makes them in the training process."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, slower."""
    ddp_backend: Literal["nccl", "gloo", "mpi", "ccl"] | None = None
    """Backend of torch.distributed; None is nccl with GPUs and gloo without."""
    resume_from_checkpoint: str | None = None
    """Checkpoint folder to start from; interrupted runs resume by themselves."""
    neftune_noise_alpha: NonNegativeFloat | None = None
    """Noise on the embeddings in training (NEFTune, arXiv:2310.05914); None adds none."""
