"""Environments: Pythons beside the usual one, for libraries whose pins cannot share it; the profile names them.

In: an environment's name. Out: what belongs into it, and how it is made. It starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hpcbench.invocation import quoted

PACKAGES: Final[Mapping[str, str]] = {
    "llamafactory": "llamafactory==0.9.5",
    "ms_swift": "ms-swift==4.6.0",
    "trl": "trl==1.16.0",
    "axolotl": "axolotl==0.19.0",
    "unsloth": "unsloth==2026.10.9",
    "vllm": "vllm==0.33.0",
}
"""Environments that hpcbench's own arguments need -> what is installed into them."""
REQUIRED: Final = {"pydantic": "pydantic", "yaml": "pyyaml", "jinja2": "jinja2", "PIL": "pillow"}
"""Modules that hpcbench's worker imports besides torch and its friends -> their distributions. hpcbench itself need not
be installed there: the job lends its own."""
MIN_PYTHON: Final = (3, 11)


def make_hint(name: str, place: str) -> str:
    """Return how an environment is made and where it is named.

    Args:
        name: of the environment.
        place: the file that names environments.
    """
    python = f"~/venvs/{name}/bin/python"
    if name in PACKAGES:
        make = quoted("environment", "create", name)
    else:
        packages = " ".join([name, *REQUIRED.values()])
        make = f"`python3 -m venv ~/venvs/{name} && {python} -m pip install {packages}`"
    return f"{make} on storage that jobs see makes one; then write `environments: {{{name}: {python}}}` into {place}"
