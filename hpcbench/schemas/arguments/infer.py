"""Arguments of `cmd: infer`: what answers, to which prompts, and how."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from hpcbench.schemas.arguments.base import Arguments, PositiveInt

DEFAULT_SHOWN_ROWS: Final = 20
"""As SWIFT 2.x's infer.sh."""
GENERATION_ARGUMENTS: Final = (
    *("max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "num_beams", "stop_words"),
    "seed",
)
"""The arguments of a training that decide how answers are generated."""
Share = Annotated[float, Field(gt=0, le=1)]


class InferArgs(Arguments):
    """How a model answers prompts; model, template, system prompt, data and sampling are arguments of trainings too."""

    ckpt_dir: str | None = None
    """Checkpoint folder that answers: an adapter or a whole model, of hpcbench or of peft and transformers; None is the
    model itself, or what `ckpt_from` trains."""
    ckpt_from: str | None = None
    """Experiment of the same suite whose training answers."""
    checkpoint: Literal["best", "last"] | None = None
    """Which checkpoint of `ckpt_from`; None is best where it has a validation split, else last."""
    load_args_from_ckpt_dir: bool = True
    """Whether model, template, system prompt, dtype and quantization that are not given are those of the training that
    wrote `ckpt_dir`, or the base that its adapter names."""
    load_dataset_config: bool = False
    """Whether the datasets and their split are that training's, too."""
    eval_human: bool | None = None
    """Whether a person types the prompts; None is yes for `hpcbench infer` without a dataset. Never in a suite."""
    show_dataset_sample: int | None = None
    """Rows that are answered, drawn by dataset_split_seed; -1 is all. None is all of val_dataset, or 20 of those that
    are split off dataset."""
    infer_backend: Literal["pt", "vllm"] = "pt"
    """What generates: transformers (pt), or vLLM in the environment that the cluster profile names for it."""
    max_batch_size: PositiveInt = 1
    """Prompts that are answered at a time."""
    stream: bool = True
    """Whether a person sees an answer while it is generated."""
    merge_lora: bool = False
    """Merge the adapter into the base before answering: faster, and the same answers up to rounding."""
    merge_lora_and_save: bool = False
    """The same, and keep the merged model: in the job's folder, as checkpoints/merged."""
    save_result: bool = True
    """Whether the answers are kept, as results.jsonl in the job's folder."""
    save_generation_config: bool = True
    """Whether the settings of the generation are kept, as generation_config.json in the job's folder."""
    gpu_memory_utilization: Share = 0.9
    """Part of each GPU's memory that vLLM takes; this and the next six only with infer_backend vllm."""
    tensor_parallel_size: PositiveInt = 1
    """GPUs that vLLM splits each layer over; requirements.gpu has to be as many."""
    max_num_seqs: PositiveInt = 256
    """Prompts that vLLM runs at the same time, at most."""
    max_model_len: PositiveInt | None = None
    """Longest prompt and answer together in tokens for vLLM; None is the model's own."""
    enforce_eager: bool = False
    """Whether vLLM does without CUDA graphs."""
    disable_custom_all_reduce: bool = True
    """Whether vLLM leaves sums over GPUs to NCCL."""
    vllm_max_lora_rank: PositiveInt = 16
    """Largest rank of an adapter that vLLM loads."""
