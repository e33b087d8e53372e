"""The engine of `infer_backend: vllm`: the same prompts, answered by vLLM in the environment that has it.

In: what answers, the generation options. Out: answers. hpcbench writes the prompts and reads the tokens, so that rows
are the same with every engine; vLLM loads the weights by itself.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Sequence
from typing import Any

from hpcbench.errors import WorkerError, first_line
from hpcbench.schemas.arguments import TORCH_DTYPES
from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import PEFT_CONFIG
from hpcbench.worker.infer.engine import Answer, EngineFacts, GenerationOptions, Prompt, random_of, trim
from hpcbench.worker.infer.model import Answering
from hpcbench.worker.models import source
from hpcbench.worker.requirements import require

_SEED_BITS = 31
"""vLLM takes a seed per prompt, of less than 64 bits."""


class VllmEngine:
    """A model in vLLM that answers."""

    def __init__(self, answering: Answering, options: GenerationOptions) -> None:
        # In this process prompts are scheduled in the same order each time (vLLM's notes on reproducibility).
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        require("vllm", for_what="infer_backend: vllm")
        if answering.infer.merge_lora_and_save:
            raise WorkerError(
                "merge_lora_and_save: vLLM does not merge", hint="merge it by `cmd: export`, and name that model"
            )
        if answering.is_adapter and answering.found is not None and answering.found.kind != "peft":
            raise WorkerError(
                f"{answering.folder}: vLLM loads no adapter but peft's lora", hint="set infer_backend: pt"
            )
        self._vllm = importlib.import_module("vllm")
        self._answering = answering
        self._options = options
        self._lora = self._make_lora_request()
        self._llm = self._load()

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Return an answer to each prompt of a batch, in order."""
        started_s = time.perf_counter()
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(prompt.input_ids)} for prompt in prompts],
            [self._sampling_params(prompt) for prompt in prompts],
            use_tqdm=False,
            lora_request=self._lora,
        )
        elapsed_s = time.perf_counter() - started_s
        return [self._read_output(output, elapsed_s) for output in outputs]

    def describe(self) -> EngineFacts:
        """Return its version and dtype; vLLM keeps the rest to itself."""
        dtype = TORCH_DTYPES[self._answering.args.dtype]
        return EngineFacts(backend=f"vllm {self._vllm.__version__}", dtypes={"weights": dtype})

    def _make_lora_request(self) -> Any | None:
        if not self._answering.is_adapter or self._answering.folder is None:
            return None
        began = str((read_json(self._answering.folder / PEFT_CONFIG) or {}).get("init_lora_weights"))
        if began.startswith(("pissa", "olora")):
            raise WorkerError(
                f"{self._answering.folder}: init_lora_weights {began} took a part out of the base, which vLLM does not",
                hint="set infer_backend: pt, or merge it by `cmd: export`, and name that model",
            )
        request = importlib.import_module("vllm.lora.request")
        return request.LoRARequest("adapter", 1, str(self._answering.folder))

    def _load(self) -> Any:
        answering, infer, args = self._answering, self._answering.infer, self._answering.args
        is_whole = answering.folder is not None and not answering.is_adapter
        lora = {} if self._lora is None else {"enable_lora": True, "max_lora_rank": infer.vllm_max_lora_rank}
        try:
            return self._vllm.LLM(
                model=str(answering.folder) if is_whole else source.model_source(args),
                tokenizer=answering.tokenizer.name_or_path,
                dtype=TORCH_DTYPES[args.dtype],
                trust_remote_code=args.trust_remote_code,
                seed=self._options.seed,
                tensor_parallel_size=infer.tensor_parallel_size,
                gpu_memory_utilization=infer.gpu_memory_utilization,
                max_num_seqs=infer.max_num_seqs,
                max_model_len=infer.max_model_len,
                enforce_eager=infer.enforce_eager,
                disable_custom_all_reduce=infer.disable_custom_all_reduce,
                disable_log_stats=False,  # the times of each prompt are part of them
                **lora,
            )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise WorkerError(f"vllm {self._vllm.__version__} cannot load the model: {first_line(error)}") from error

    def _sampling_params(self, prompt: Prompt) -> Any:
        options, ends = self._options, self._answering.template.answer_ends
        sampling: dict[str, Any] = {"temperature": 0.0}
        if options.do_sample:
            seed = random_of(options.seed, prompt.index).getrandbits(_SEED_BITS)
            top_k = options.top_k or -1  # vLLM's word for all
            sampling = {"temperature": options.temperature, "top_k": top_k, "top_p": options.top_p, "seed": seed}
        return self._vllm.SamplingParams(
            max_tokens=options.max_new_tokens,
            repetition_penalty=options.repetition_penalty,
            stop=[word for word in (*options.stop_words, ends.text) if word] or None,
            stop_token_ids=list(ends.token_ids),
            **sampling,
        )

    def _read_output(self, output: Any, elapsed_s: float) -> Answer:
        answer = output.outputs[0]
        ids = tuple(answer.token_ids)
        first_s, time_s = elapsed_s, elapsed_s
        times = output.metrics
        if times is not None and times.last_token_ts:
            first_s, time_s = times.first_token_ts - times.queued_ts, times.last_token_ts - times.queued_ts
        text = str(self._answering.tokenizer.decode(ids, skip_special_tokens=True))
        return Answer(
            text=trim(text, self._answering.template.answer_ends, self._options.stop_words),
            token_ids=ids,
            finish="stop" if answer.finish_reason == "stop" else "length",
            first_token_s=first_s,
            time_s=time_s,
        )
