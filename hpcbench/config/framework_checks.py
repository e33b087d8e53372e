"""What a training by another framework cannot be: refused in plan, with where it was written.

In: the framework, the resolved arguments and resources of an experiment. Out: problems with file and line. Whether
there is an environment with the framework is asked where the cluster profile is known (`submit/destination.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from hpcbench.errors import Problem
from hpcbench.frameworks import RECIPES
from hpcbench.frameworks.refusals import find_refusals
from hpcbench.schemas.arguments import FrameworkArgs, SftArgs
from hpcbench.schemas.request import Device, Framework, Resources
from hpcbench.storage.located_yaml import Located

_ARGUMENTS = "args"


def check_framework(
    framework: Framework,
    args: SftArgs,
    *,
    extra: FrameworkArgs | None,
    resources: Resources | None,
    device: Device,
    at_key: Callable[[str, str], Located],
) -> list[Problem]:
    """Return what the framework cannot be asked for; `at_key` finds a key of a section, or the experiment."""
    recipe = RECIPES[framework]
    found = []
    more = {} if extra is None else extra.framework_args
    for refusal in find_refusals(recipe, args, more, resources, device):
        section, dot, name = refusal.argument.partition(".")
        is_resource = section in {"", "requirements"}
        at = at_key(section, name) if is_resource else at_key(_ARGUMENTS, section)
        subject = f"it {refusal.why}" if section == "framework_args" else f"{recipe.title} {refusal.why}"
        message = f"`{name if dot else section}` with `cmd: {framework}`: {subject}"
        found.append(at.problem(message, hint=refusal.hint))
    return found
