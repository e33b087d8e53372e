"""The arguments of jobs, by group: model, data, training, hub and tuner make up `SftArgs`; evaluation and command.

In: plain values. Out: frozen models, checked by pydantic. `SftArgs.groups()` lists titles and names for help and
reference; a new argument is one field with a docstring in its group's file.
"""

from hpcbench.schemas.arguments.command import CommandArgs as CommandArgs
from hpcbench.schemas.arguments.evaluation import EVAL_LOSS_ONLY as EVAL_LOSS_ONLY
from hpcbench.schemas.arguments.evaluation import EvalArgs as EvalArgs
from hpcbench.schemas.arguments.sft import SftArgs as SftArgs
