"""Makes other Pythons: virtual environments that see chosen packages of this one, but not hpcbench."""

from __future__ import annotations

import site
import sys
import venv
from pathlib import Path

UNSLOTH_STAND_IN = '''
"""What hpcbench calls of unsloth, by transformers and peft; it has to be imported before them, as unsloth has."""

import sys

if "transformers" in sys.modules:
    raise ImportError("unsloth has to be imported before transformers")


class FastLanguageModel:
    @staticmethod
    def from_pretrained(name, *, max_seq_length, dtype, load_in_4bit, full_finetuning, **options):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
        model._unsloth_stand_in = True
        return model, AutoTokenizer.from_pretrained(name)

    @staticmethod
    def get_peft_model(model, *, use_gradient_checkpointing, random_state, max_seq_length, **options):
        from peft import LoraConfig, get_peft_model

        return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
'''


def make_environment(folder: Path, *, sees_packages: bool = True, unsloth: str | None = None) -> Path:
    """Make a virtual environment without pip and return its Python.

    Args:
        folder: where.
        sees_packages: whether it can import the packages of this Python, hpcbench not among them.
        unsloth: text of a module `unsloth` in it.
    """
    venv.EnvBuilder(symlinks=True).create(folder)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / name / "site-packages"
    if sees_packages:
        # A line of a .pth file goes on the path, but .pth files found there, such as hpcbench's own, are not read.
        places = [path for path in sys.path if Path(path).name == "site-packages" or path in site.getsitepackages()]
        (packages / "these.pth").write_text("".join(f"{place}\n" for place in places))
    if unsloth is not None:
        (packages / "unsloth.py").write_text(unsloth)
    return folder / "bin" / "python"
