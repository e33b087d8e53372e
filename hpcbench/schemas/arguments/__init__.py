"""The arguments of jobs, one file per group; trainings have theirs in one flat `SftArgs`.

In: plain values from a suite or a command line, where numbers, booleans and lists may be text. Out: frozen models.
`SftArgs.groups()` lists titles and names for help and reference. `config/aliases.py` resolves the names of later SWIFT
versions and of Hugging Face before values come here, so that messages name what was written.
"""

from hpcbench.schemas.arguments.base import TORCH_DTYPES, Arguments, Dtype
from hpcbench.schemas.arguments.command import CommandArgs
from hpcbench.schemas.arguments.data import DataArgs
from hpcbench.schemas.arguments.evaluation import EVAL_LOSS_ONLY, NOT_IN_SCORES, EvalArgs
from hpcbench.schemas.arguments.export import ExportArgs
from hpcbench.schemas.arguments.framework import FrameworkArgs
from hpcbench.schemas.arguments.hub import HubArgs
from hpcbench.schemas.arguments.images import ImageArgs
from hpcbench.schemas.arguments.infer import DEFAULT_SHOWN_ROWS, GENERATION_ARGUMENTS, InferArgs
from hpcbench.schemas.arguments.model import ATTENTIONS, HUB_KERNELS, ModelArgs
from hpcbench.schemas.arguments.parallel import ParallelArgs
from hpcbench.schemas.arguments.preference import LOSS_TYPES, WITH_REFERENCE, PreferenceArgs, RlhfType
from hpcbench.schemas.arguments.sft import GROUPS, QUANTIZABLE, SftArgs
from hpcbench.schemas.arguments.speed import SpeedArgs
from hpcbench.schemas.arguments.training import TrainingArgs
from hpcbench.schemas.arguments.tuner import LORA_ONLY, SftType, TunerArgs

__all__ = [
    "ATTENTIONS",
    "DEFAULT_SHOWN_ROWS",
    "EVAL_LOSS_ONLY",
    "GENERATION_ARGUMENTS",
    "GROUPS",
    "HUB_KERNELS",
    "LORA_ONLY",
    "LOSS_TYPES",
    "NOT_IN_SCORES",
    "QUANTIZABLE",
    "TORCH_DTYPES",
    "WITH_REFERENCE",
    "Arguments",
    "CommandArgs",
    "DataArgs",
    "Dtype",
    "EvalArgs",
    "ExportArgs",
    "FrameworkArgs",
    "HubArgs",
    "ImageArgs",
    "InferArgs",
    "ModelArgs",
    "ParallelArgs",
    "PreferenceArgs",
    "RlhfType",
    "SftArgs",
    "SftType",
    "SpeedArgs",
    "TrainingArgs",
    "TunerArgs",
]
