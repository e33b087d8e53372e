"""Arguments of the training loop, and of the answers that it may generate."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hpcbench.schemas.arguments.base import (
    Arguments,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Words,
)
from hpcbench.schemas.optimizers import MIN_LR_SCHEDULER


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
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the mean of gradients, of optimizers of Adam's family."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the mean of squared gradients; SWIFT 2.4's default is 0.95."""
    adam_epsilon: NonNegativeFloat = 1e-8
    """Added to the root of that mean before dividing by it."""
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
    lr_scheduler_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Settings of the schedule by transformers' names, for example {num_cycles: 2} of cosine_with_restarts."""
    min_lr: NonNegativeFloat | None = None
    """Learning rate that a cosine schedule ends with; None is 0."""
    warmup_ratio: Fraction = 0.05
    """Part of all steps over which the learning rate rises."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises; 1 or more overrides warmup_ratio."""
    predict_with_generate: bool = False
    """Also generate answers to the validation prompts at each evaluation and record their mean ROUGE-L."""
    max_new_tokens: PositiveInt = 1024
    """Longest generated answer in tokens; this and the next seven only with predict_with_generate."""
    do_sample: bool = True
    """Sample answers; False takes the most likely token each time."""
    temperature: NonNegativeFloat = 0.9
    """Divides the logits before sampling; below 1 favours likely tokens, 0 takes the most likely one each time."""
    top_k: NonNegativeInt = 20
    """Number of most likely tokens to sample from; 0 is all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Total probability of the most likely tokens to sample from."""
    repetition_penalty: PositiveFloat = 1.0
    """Divides the logits of tokens that already occurred; 1 changes nothing."""
    num_beams: PositiveInt = 1
    """Beams that are followed while an answer is generated; 1 follows one."""
    stop_words: Words = ()
    """Texts that end an answer, which is cut before them."""
    eval_strategy: Literal["steps", "epoch", "no"] = "steps"
    """When the validation rows are evaluated: every eval_steps or at the end of each epoch, and at the last step; no
    never evaluates them, so that no checkpoint is the best."""
    eval_steps: PositiveInt = 50
    """Optimizer steps between two evaluations on the validation rows; the last step is always evaluated."""
    save_steps: PositiveInt | None = None
    """Optimizer steps between two checkpoints; None is eval_steps."""
    save_strategy: Literal["steps", "epoch", "no"] = "steps"
    """When a checkpoint is written: every save_steps or at the end of each epoch, and at the last step; no keeps none,
    so nothing can be evaluated afterwards."""
    save_total_limit: int = 2
    """2 keeps the best and the last checkpoint, -1 keeps all."""
    only_save_model: bool | None = None
    """Whether finished checkpoints hold weights only; None is True for full, False for lora."""
    logging_steps: PositiveInt = 5
    """Optimizer steps between two lines of the log."""
    dataloader_num_workers: NonNegativeInt = 1
    """Processes per rank that make batches; 0 makes them in the training process."""
    dataloader_pin_memory: bool = True
    """Put batches where a GPU can fetch them faster; without a GPU it changes nothing."""
    dataloader_drop_last: bool = False
    """Leave the last rows of an epoch out where they do not fill a batch on every rank."""
    dataloader_prefetch_factor: PositiveInt | None = None
    """Batches that each of those processes makes ahead; None is 2."""
    dataloader_persistent_workers: bool = False
    """Keep those processes from epoch to epoch."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, slower."""
    ddp_backend: Literal["nccl", "gloo", "mpi", "ccl"] | None = None
    """Backend of torch.distributed; None is nccl with GPUs and gloo without."""
    ddp_timeout: PositiveInt = 14400
    """Seconds that a rank waits for another before the training fails."""
    ddp_find_unused_parameters: bool | None = None
    """Whether DDP looks for weights without a gradient in each step; None does where the method leaves some."""
    ddp_broadcast_buffers: bool | None = None
    """Whether DDP copies buffers from rank 0 in each step; None does unless gradient_checkpointing is on."""
    full_determinism: bool = False
    """Use deterministic kernels only, which are slower: the same training gives the same bits; an operation without
    such a kernel ends the job."""
    gpu_memory_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """Part of each GPU's memory that torch may take; more than that is out of memory. None sets no limit."""
    resume_from_checkpoint: str | None = None
    """Checkpoint folder to start from; interrupted runs resume by themselves."""
    resume_only_model: bool = False
    """Take only the weights of resume_from_checkpoint: optimizer, schedule, steps and rows start anew."""
    neftune_noise_alpha: NonNegativeFloat | None = None
    """Noise on the embeddings in training (NEFTune, arXiv:2310.05914); None adds none."""

    @model_validator(mode="after")
    def _resumes_something(self) -> Self:
        if self.resume_only_model and self.resume_from_checkpoint is None:
            raise ValueError("resume_only_model: resume_from_checkpoint names no checkpoint whose weights to take")
        return self

    @property
    def samples_answers(self) -> bool:
        """Whether answers are drawn, and not the most likely token taken each time."""
        return self.do_sample and self.temperature > 0

    @property
    def schedule(self) -> tuple[str, dict[str, Any]]:
        """The learning rate schedule by transformers' name, and its settings."""
        if self.min_lr is None:
            return self.lr_scheduler_type, dict(self.lr_scheduler_kwargs)
        name = MIN_LR_SCHEDULER if self.lr_scheduler_type == "cosine" else self.lr_scheduler_type
        return name, {**self.lr_scheduler_kwargs, "min_lr": self.min_lr}

    def count_warmup_steps(self, num_steps: int) -> int:
        """Return the steps of the warm-up in a training of `num_steps`."""
        return self.warmup_steps or math.ceil(num_steps * self.warmup_ratio)
