"""Arguments of SWIFT, ms-swift and Hugging Face that hpcbench refuses, or takes although they change nothing here.

Values only: a name -> why, and what to do instead. `aliases.py` applies them, REFERENCE.md lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

NOTHING: Final = ("null", "none", "", "[]", "{}")
OFF: Final = ("false", "0", "0.0", "no", *NOTHING)
ON: Final = ("true", "1", "yes", *NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an argument is refused, and what leads on."""

    why: str
    instead: str
    idle: tuple[str, ...] = OFF
    """Values in lower case that ask for nothing, such as the release's default: they are taken."""


def _refuse(*names: str, why: str, instead: str, idle: tuple[str, ...] = OFF) -> dict[str, Refusal]:
    return dict.fromkeys(names, Refusal(why=why, instead=instead, idle=idle))


_WHERE = "hpcbench decides where results go"
_SAVE_DIR = "give the root of all results on the command line: --save-dir"
_REMOVE = "remove it"
_INFER = "`cmd: infer` generates answers, and a training or an eval does not"
_SERVING = "hpcbench serves no model"
_ANSWERS = "remove it; `cmd: infer` generates answers, eval_dataset evaluates a model"
_MODEL_FOLDER = "save the model as you want it into a folder, and give model_id_or_path: that folder"

_DATA: Final[Mapping[str, Refusal]] = {
    **_refuse(
        *("streaming", "streaming_val_size"),
        why="datasets are read whole, so that rows are split, drawn and counted alike in every run",
        instead="set train_dataset_sample for fewer rows, lazy_tokenize: true to tokenize while training",
    ),
    **_refuse(
        *("streaming_buffer_size", "shuffle_buffer_size", "interleave_prob", "stopping_strategy"),
        why="it is for streamed datasets, and datasets are read whole",
        instead="remove it; rows of several datasets follow each other and are shuffled in every epoch",
        idle=("16384", "1000", "first_exhausted", *NOTHING),
    ),
    **_refuse(
        "dataset_shuffle",
        why="rows are drawn by dataset_split_seed and shuffled by seed in every epoch",
        instead=f"{_REMOVE}; another seed gives another order",
        idle=ON,
    ),
    **_refuse(
        "download_mode",
        why="jobs download nothing, so there is nothing to download again",
        instead="remove it and run `hpcbench prefetch`",
        idle=("reuse_dataset_if_exists", *NOTHING),
    ),
    **_refuse(
        *("cached_dataset", "cached_val_dataset"),
        why="tokens that ms-swift cached are in a form of its own",
        instead="name the dataset itself in dataset or val_dataset",
    ),
    **_refuse(
        "custom_dataset_info",
        why="a registry of datasets is read in LLaMA-Factory's form",
        instead="write its entries into a dataset_info.json (file_name, hf_hub_url or ms_hub_url, and columns) and set "
        "dataset_info to that file",
        idle=NOTHING,
    ),
    **_refuse(
        "disable_auto_column_mapping",
        why="columns are found by their names unless a registry names them",
        instead="name the columns in a dataset_info.json beside the suite",
    ),
    **_refuse(
        "loss_scale_config_path",
        why="weights of the loss are in the catalog of agents, not in a file of the job",
        instead="write them into ~/.config/hpcbench/agents.yaml, then set agent_template and use_loss_scale: true",
        idle=("default", *NOTHING),
    ),
    **_refuse(
        "loss_scale",
        why="these weights of the loss are not in the catalog of agents",
        instead="write them into ~/.config/hpcbench/agents.yaml, then set agent_template and use_loss_scale: true",
        idle=NOTHING,
    ),
    **_refuse(
        "is_binary_loss_scale",
        why="whether a loss weighs tokens follows from use_loss_scale",
        instead="set use_loss_scale, or remove it",
        idle=NOTHING,
    ),
    **_refuse(
        *("self_cognition_sample", "model_name", "model_author"),
        why="rows of self-cognition and their placeholders are not part of hpcbench",
        instead="write such rows, with the names in them, into a file and list it in dataset",
        idle=("[null, null]", *OFF),
    ),
    **_refuse(
        "tools_prompt",
        why="tool calls are written as a template of the catalog says",
        instead="set agent_template to one of the catalog's, or add yours to ~/.config/hpcbench/agents.yaml",
        idle=NOTHING,
    ),
    **_refuse(
        "norm_bbox", why="coordinates in answers are trained on as they are written", instead=_REMOVE, idle=NOTHING
    ),
    **_refuse(
        "padding_side",
        why="training pads at the right, generation at the left",
        instead=_REMOVE,
        idle=("right", *NOTHING),
    ),
    **_refuse(
        "padding_free",
        why="rows are either padded or packed",
        instead="set packing: true, which fills sequences with whole rows that do not see each other",
    ),
    **_refuse(
        "response_prefix",
        why="an answer is trained on and asked for as the chat template begins it",
        instead="set template_type to a template that writes the prefix, or write it into the rows",
        idle=NOTHING,
    ),
    **_refuse(
        *("enable_thinking", "preserve_thinking"),
        why="chat templates run with their own defaults, the same in training and evals",
        instead="remove it, or give a model folder whose chat template has the default that you want",
        idle=NOTHING,
    ),
    **_refuse(
        "add_non_thinking_prefix",
        why="what a chat template writes before an answer is left as it is",
        instead=_REMOVE,
        idle=ON,
    ),
    **_refuse(
        "disable_ignore_empty_think",
        why="an empty thought in a row is trained on as it is written",
        instead=f"{_REMOVE}; take empty thoughts out of the rows if they are not to be learned",
    ),
}

_TRAINING: Final[Mapping[str, Refusal]] = {
    **_refuse(
        *("zero_hpz_partition_size", "deepspeed_autotp_size"),
        why="it is a setting of DeepSpeed's own file",
        instead="remove it, or write it into a JSON file of your own and give deepspeed: that file",
        idle=("1", *OFF),
    ),
    **_refuse(
        "fsdp_num",
        why="all ranks of a training share its model",
        instead="set requirements.ddp to the number of ranks, and fsdp",
        idle=("1", *OFF),
    ),
    **_refuse(
        "model_layer_cls_name",
        why="it is a setting of FSDP",
        instead="set fsdp_config: {transformer_layer_cls_to_wrap: the class's name}",
    ),
    **_refuse(
        *("sequence_parallel", "sequence_parallel_size"),
        why="a sequence stays on one rank",
        instead="lower max_length or set gradient_checkpointing: true",
        idle=("1", *OFF),
    ),
    **_refuse(
        *("train_backend", "tp", "pp"),
        why="hpcbench trains with transformers, and Megatron-LM has checkpoints and arguments of its own",
        instead="remove it, or run a script of Megatron-LM as `cmd: command`",
        idle=("transformers", "1", *NOTHING),
    ),
    **_refuse(
        "metric_warmup_step",
        why="it is for TorchAcc; the report's steady speed leaves the first steps out by itself",
        instead=_REMOVE,
    ),
    **_refuse(
        "auto_find_batch_size",
        why="rows with batch sizes that depend on a GPU's memory cannot be compared, and out of memory is a result",
        instead="set batch_size, and test_oom_error: true to see at once whether it fits",
    ),
    **_refuse(
        "ignore_data_skip",
        why="a requeued training goes on with the rows that it has not seen",
        instead="set resume_only_model: true to start from a checkpoint's weights with all rows",
    ),
    **_refuse(
        "acc_steps",
        why="training computes no accuracy",
        instead="remove it; eval_loss is computed every eval_steps",
        idle=("1", *NOTHING),
    ),
    **_refuse(
        "acc_strategy",
        why="training computes no accuracy",
        instead="remove it; eval_loss is computed every eval_steps",
        idle=("token", *NOTHING),
    ),
    **_refuse(
        "save_on_each_node", why="all nodes see the folder that results are in, which rank 0 writes", instead=_REMOVE
    ),
    **_refuse(
        *("save_safetensors", "safe_serialization"),
        why="weights are written as safetensors, since pickles can run code",
        instead=_REMOVE,
        idle=ON,
    ),
    **_refuse(
        "ignore_args_error",
        why="a mistyped argument that is passed over trains something else than was asked for",
        instead=_REMOVE,
    ),
    **_refuse(
        "report_to",
        why="losses and figures are in each job's history.jsonl and in the report, and jobs need no internet",
        instead="remove it; `hpcbench export --to tensorboard` (wandb, trackio, mlflow) hands them on",
    ),
    **_refuse(
        *("reft_layers", "reft_layer_key", "reft_rank", "reft_intervention_type", "reft_args"),
        why="pyreft, which has reft, needs transformers 4.45.1",
        instead="remove it; sft_type: ia3 or vera trains as few weights",
        idle=("4", "loreftintervention", *NOTHING),
    ),
    **_refuse(
        *("lora_ga_batch_size", "lora_ga_iters", "lora_ga_max_length"),
        *("lora_ga_direction", "lora_ga_scale", "lora_ga_stable_gamma"),
        why="lora-ga changes the base by gradients over data, and no checkpoint holds by how much",
        instead="remove it; init_lora_weights: pissa or olora begins from the base's weights",
        idle=("2", "1024", "16", "arb2r", "stable", *NOTHING),
    ),
}

_MODEL: Final[Mapping[str, Refusal]] = {
    **_refuse(
        *("local_repo_path", "custom_register_path", "external_plugins"),
        why="a suite brings no Python code into a job",
        instead="add models and datasets to ~/.config/hpcbench/models.yaml and datasets.yaml; code in a model's own "
        "folder runs with trust_remote_code: true",
    ),
    **_refuse(
        "model_kwargs",
        why="what it sets differs from model to model in ms-swift",
        instead="remove it; the size of images is set by max_pixels",
    ),
    **_refuse(
        "task_type",
        why="hpcbench trains models that write text",
        instead="run a script for classifiers or embeddings as `cmd: command`",
        idle=("causal_lm", *NOTHING),
    ),
    **_refuse(
        *("num_labels", "problem_type", "reranker_use_activation"),
        why="it is for classifiers and rerankers, and hpcbench trains models that write text",
        instead="run a script for classifiers or rerankers as `cmd: command`",
        idle=("true", *NOTHING),
    ),
    **_refuse(
        "new_special_tokens",
        why="a model is trained with the tokens that it has",
        instead="add the tokens with transformers (add_tokens, resize_token_embeddings, save_pretrained), and give "
        "model_id_or_path: that folder",
    ),
    **_refuse("experts_impl", why="experts are computed as the model's code does it", instead=_REMOVE, idle=NOTHING),
    **_refuse(
        "init_strategy",
        why="weights that a model's files lack are refused, not drawn",
        instead=_MODEL_FOLDER,
        idle=NOTHING,
    ),
    **_refuse(
        *("device_map", "device_map_config_path"),
        why="layers are spread evenly over a rank's GPUs",
        instead="set requirements.gpu with ddp: 1, and device_max_memory to leave room on a GPU",
        idle=("auto", *NOTHING),
    ),
    **_refuse(
        "max_memory",
        why="it has one form here",
        instead="write device_max_memory: [20GiB, 20GiB], one for each GPU",
        idle=NOTHING,
    ),
    **_refuse(
        *("hqq_axis", "hqq_dynamic_config_path"),
        why="hqq cannot be loaded by the transformers that hpcbench needs",
        instead="set quantization_bit: 4 or 8, which is bitsandbytes",
        idle=OFF,
    ),
    **_refuse(
        "bnb_4bit_quant_storage",
        why="the dtype in which 4-bit weights are stored matters to FSDP alone",
        instead=_REMOVE,
        idle=("uint8", *NOTHING),
    ),
    **_refuse(
        "hub_token",
        why="a token in a suite would be copied into job files, records and reports",
        instead="log in with `hf auth login`, or set HF_TOKEN (ModelScope: MODELSCOPE_API_TOKEN) where you submit",
        idle=NOTHING,
    ),
    **_refuse(
        "use_hf",
        why="which hub is read from is a setting of the environment, the same for plan, prefetch and jobs",
        instead="to read from ModelScope set USE_MODELSCOPE_HUB=1 where you submit",
        idle=ON,
    ),
    **_refuse(
        "ref_model_revision",
        why="a model is what the local cache or folder holds",
        instead="download that revision and give model_id_or_path: its folder",
        idle=("master", "main", *NOTHING),
    ),
}

_OTHER_COMMANDS: Final[Mapping[str, Refusal]] = {
    **_refuse(
        "max_completion_length",
        why="answers that are learned from are those of the rows, and are not generated",
        instead="set max_prompt_length and max_length",
        idle=("512", *NOTHING),
    ),
    **_refuse(
        *("center_rewards_coefficient", "sft_alpha", "lmbda", "seq_kd", "gkd_logits_topk"),
        why="it is for reward models (rm) and distillation (gkd), which hpcbench does not train",
        instead="remove it, or run a script of TRL as `cmd: command`",
        idle=("0.5", *OFF),
    ),
    **_refuse(
        *("host", "port", "api_key", "ssl_keyfile", "ssl_certfile", "owned_by", "served_model_name", "log_interval"),
        *("log_level", "max_logprobs", "vllm_use_async_engine", "deploy_timeout"),
        why=_SERVING,
        instead=_ANSWERS,
        idle=(
            *("127.0.0.1", "0.0.0.0", "8000", "swift", "10", "20", "info", "60", *NOTHING),  # noqa: S104  # no socket
        ),
    ),
    **_refuse(
        *("eval_url", "eval_token", "eval_is_chat_model"),
        why="evals run a model in their own job, and ask no server",
        instead="name the model, or set eval_args.command to a program of yours that asks the server",
        idle=("empty", *NOTHING),
    ),
    **_refuse(
        "custom_eval_config",
        why="tasks are lm-eval's, and files of EvalScope are not read",
        instead="write an lm-eval task and name its folder in eval_args.include_path",
        idle=NOTHING,
    ),
    **_refuse(
        "eval_backend",
        why="evals run with lm-eval",
        instead="remove it, or set eval_args.command to a program that runs another harness",
        idle=NOTHING,
    ),
    **_refuse(
        "eval_generation_config",
        why="it has lm-eval's names here",
        instead="write eval_args.gen_kwargs, for example {max_gen_toks: 64, do_sample: false}",
    ),
    **_refuse(
        *("eval_dataset_args", "extra_eval_args"),
        why="it is for EvalScope, and evals run with lm-eval",
        instead="set eval_args, for one dataset in eval_args.per_dataset",
    ),
    **_refuse(
        "eval_use_cache",
        why="a finished eval is kept, and one that was interrupted starts again",
        instead=_REMOVE,
    ),
    **_refuse(
        "eval_num_proc",
        why="an eval sends no requests to a server, it computes batches",
        instead="set eval_args.batch_size",
        idle=("16", *NOTHING),
    ),
    **_refuse(
        "local_dataset",
        why="tasks are read from the local cache, which `hpcbench prefetch` fills",
        instead=_REMOVE,
    ),
    **_refuse(
        "name", why="an experiment's name stands beside `args`", instead="write `name:` beside `args`", idle=NOTHING
    ),
    **_refuse(
        *("logprobs", "top_logprobs", "structured_outputs_regex"),
        why="answers are kept as text, without probabilities or a grammar",
        instead=f"{_REMOVE}; eval tasks of multiple choice compare probabilities",
    ),
    **_refuse(
        "exist_ok",
        why="an export never writes into a folder that is there",
        instead="remove it and give another output_dir, or none",
    ),
    **_refuse(
        *("to_ollama", "ollama_output_dir", "gguf_file"),
        why="hpcbench writes folders that transformers loads",
        instead="export the merged model and convert its folder with llama.cpp",
    ),
    **_refuse(
        *("to_megatron", "to_mcore", "to_hf", "megatron_output_dir", "hf_output_dir", "mcore_model", "mcore_adapter"),
        *("thread_count", "test_convert_precision", "test_convert_dtype", "save_missing_weights"),
        why="hpcbench trains with transformers, and converts nothing from or to Megatron-LM",
        instead=_REMOVE,
        idle=("float32", *OFF),
    ),
    **_refuse("to_peft_format", why="adapters are peft's already", instead=_REMOVE),
    **_refuse(
        *("to_cached_dataset", "template_mode"),
        why="the first training makes the tokens and keeps them for all others of the same data",
        instead=_REMOVE,
        idle=("train", *OFF),
    ),
    **_refuse("commit_message", why="a push names the run by itself", instead=_REMOVE, idle=("update files", *NOTHING)),
    **_refuse(
        *("lora_modules", "vllm_lora_modules"),
        why="one checkpoint answers all prompts of a job",
        instead="name its folder in ckpt_dir, and write an experiment for each of several",
    ),
    **_refuse(
        "merge_device_map",
        why="an adapter is merged where its model is loaded",
        instead="remove it; device: cpu merges on the CPU",
        idle=("cpu", *NOTHING),
    ),
    **_refuse(
        "overwrite_generation_config",
        why="a checkpoint that answers is left as it is",
        instead="remove it; save_generation_config keeps the settings beside the answers",
    ),
    **_refuse(
        *("cache_max_entry_count", "quant_policy", "vision_batch_size"),
        why="it is for LMDeploy, and answers are generated by transformers or vLLM",
        instead=f"{_REMOVE}; infer_backend: vllm has gpu_memory_utilization",
        idle=("0.8", "1", *OFF),
    ),
}

REFUSED: Final[Mapping[str, Refusal]] = {**_DATA, **_TRAINING, **_MODEL, **_OTHER_COMMANDS}
"""Argument -> why it is refused, wherever it asks for something."""

_GPTQ_BASE = "train on a folder that `cmd: export` wrote with quant_method: gptq and quant_bits: {}"
REFUSED_VALUES: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "ddp_backend": {"hccl": ("it is for Ascend NPUs, which hpcbench does not run on", "remove ddp_backend")},
    "quantization_bit": {
        "1": ("bitsandbytes has 4 and 8 bits", "set quantization_bit: 4"),
        **{bits: ("bitsandbytes has 4 and 8 bits", _GPTQ_BASE.format(bits)) for bits in ("2", "3")},
    },
    "quant_method": {
        **dict.fromkeys(
            ("hqq", "eetq", "quanto", "fp8"),
            ("it cannot be trained with the libraries that hpcbench needs", "take bnb, gptq or awq"),
        ),
        "gptq_v2": ("GPTQModel writes its first form, which all programs load", "take gptq"),
    },
    "infer_backend": dict.fromkeys(
        ("lmdeploy", "sglang"), ("answers are generated by transformers or vLLM", "take pt, or vllm for speed")
    ),
    "truncation_strategy": {
        "right": ("the end of a sample is the answer that is learned", "take truncation_left or delete"),
    },
}
"""Argument -> value of SWIFT in lower case -> why it is refused, and what leads on."""

FORBIDDEN: Final[Mapping[str, str]] = dict.fromkeys(
    (
        *("output_dir", "logging_dir", "add_output_dir_suffix", "overwrite_output_dir", "eval_output_dir"),
        *("result_dir", "result_path"),
    ),
    f"{_WHERE}; {_SAVE_DIR}",
)
"""Argument -> why a suite may not set it at all."""

WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "disable_tqdm": "jobs write logs without progress bars",
    "check_model_is_latest": "jobs take what the local cache holds",
    "neftune_backend": "there is one implementation of NEFTune, which is that of the paper",
    "include_num_input_tokens_seen": "tokens are always counted",
    "packing_num_proc": "packing takes no more than a second, in one process",
    "load_from_cache_file": "tokens are kept under a hash of all that decides them",
    "remove_unused_columns": "columns that are not trained on never reach the model",
    "val_dataset_shuffle": "eval_loss does not depend on the order of rows",
    "template_backend": "chat templates are the tokenizer's own, or template_type's of the catalog",
    "enable_npu_model_patch": "it is for Ascend NPUs, which hpcbench does not run on",
    "add_version": "each attempt has a folder of its own",
    "metric": "answers are compared with the rows' own by both exact match and ROUGE-L",
    "verbose": "jobs write their log anyway",
    "vllm_enable_lora": "vLLM is told of an adapter where ckpt_dir is one",
    "write_batch_size": "answers are on disk after every batch of max_batch_size",
    "create_checkpoint_symlink": "finished checkpoints are always called best and last",
}
"""Argument -> why it changes nothing, whatever its value; plan says so."""
