"""What `tuner_backend: unsloth` cannot train: refused before anything waits in a queue.

In: the arguments and resources of a training, and where each was written. Out: problems with file and line. Whether
there is an environment with unsloth is asked where the cluster profile is known (`submit/destination.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hpcbench.errors import Problem
from hpcbench.schemas.arguments import SftArgs, TunerArgs
from hpcbench.schemas.request import Resources
from hpcbench.storage.located_yaml import Located

HONOURED: Final = frozenset(
    {"sft_type", "tuner_backend", "lora_target_modules", "lora_rank", "lora_alpha", "lora_dropout_p", "lora_lr_ratio"}
    | {"use_rslora", "lora_bias_trainable", "lora_modules_to_save", "neftune_noise_alpha"}
)
"""The arguments of tuners that have an effect on unsloth's models."""
REFUSED: Final = {
    # Its kernels for GPUs mask by length alone.
    "packing": "would let the samples of a pack see each other",
    "use_loss_scale": "computes its loss itself, so that all tokens weigh the same",
    "attn_impl": "chooses its attention itself",
    **dict.fromkeys(
        ("use_liger_kernel", "torch_compile", "chunked_cross_entropy", "use_cce"), "has kernels and a loss of its own"
    ),
    "activation_offloading": "moves activations in its own way",
    **dict.fromkeys(
        ("bnb_4bit_comp_dtype", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant"), "quantizes to nf4 in its own way"
    ),
}
_INSTEAD: Final = "remove one of them; tuner_backend: peft trains both"


def check_unsloth(args: SftArgs, resources: Resources | None, at_key: Callable[[str], Located]) -> list[Problem]:
    """Return what unsloth would leave out or do otherwise."""
    if args.tuner_backend != "unsloth":
        return []
    if args.rlhf_type is not None:
        message = "`tuner_backend: unsloth` trains by supervised fine-tuning alone"
        return [at_key("tuner_backend").problem(message, expected="tuner_backend: peft")]
    if args.sft_type not in {"lora", "full"}:
        message = f"`tuner_backend: unsloth` does not train `{args.sft_type}`"
        return [at_key("sft_type").problem(message, expected="lora or full", hint="take tuner_backend: peft")]
    left_out = [name for name in TunerArgs.model_fields if name not in HONOURED and args.differs_from_default(name)]
    found = [
        at_key(name).problem(f"`{name}` has no effect with `tuner_backend: unsloth`", hint=_INSTEAD)
        for name in left_out
    ]
    if args.quantization_bit not in {0, 4}:
        message = "`tuner_backend: unsloth` quantizes to 4 bits alone"
        found.append(at_key("quantization_bit").problem(message, expected="4 or 0", hint="or take tuner_backend: peft"))
    for name, why in REFUSED.items():
        if args.differs_from_default(name):
            message = f"`{name}` with `tuner_backend: unsloth`, which {why}"
            found.append(at_key(name).problem(message, hint=_INSTEAD))
    if resources is not None and (resources.ddp > 1 or resources.gpu > 1):
        message = f"`tuner_backend: unsloth` trains on one GPU, not on gpu {resources.gpu} with ddp {resources.ddp}"
        expected = f"requirements: {{gpu: {min(resources.gpu, 1)}, ddp: 1}}"
        found.append(at_key("tuner_backend").problem(message, expected=expected))
    return found
