"""A command line of one of these verbs, as ms-swift's scripts write it, read into the suite of one experiment.

The document is located, so that every check and message is the one that a suite file would get. It touches no disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpcbench.cli.single_run.options import EXPORT_MODEL, INFER, Option, Verb, options_of
from hpcbench.config.aliases import ALIASES
from hpcbench.config.other_tools import OTHER_EVAL_OPTIONS
from hpcbench.config.typed_fields import TRUE_WORDS, take
from hpcbench.errors import ConfigError, Problem
from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.located_yaml import Located, parse_yaml, shorten

NO_NAME = "run"
"""The experiment's name until its version number is chosen, where no name was typed."""

_NOTHING = frozenset({"null", "None"})
CKPT_DIR = "ckpt_dir"
RUN_ALIASES = {"save_dir": "output_dir"}
"""Of verbs whose output_dir is where results go."""
_PATH_OR_MAPPING = frozenset({"local_data"})
"""Mappings that may be one path instead."""
_MODEL_NAMES = frozenset({"model_type", "model_id_or_path"})
_OF_A_SCHEDULER = frozenset({"nodes", "gpu_type", "cpus_per_gpu", "time", "partition", "cluster"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """A command line, read but not checked."""

    verb: Verb
    values: Mapping[str, Located]
    """By the option's or argument's name, with underscores."""

    def text(self, name: str) -> str | None:
        """Return the text of an option of the run itself, None where it was not typed."""
        found = self.values.get(name)
        return None if found is None or not isinstance(found.value, str) else found.value

    def is_on(self, name: str) -> bool:
        """Return whether a switch of the run itself was typed and is on."""
        return (self.text(name) or "").lower() in TRUE_WORDS


@dataclass(slots=True)
class _Word:
    written: str
    name: str
    values: list[str] = field(default_factory=list)


def read_words(verb: Verb, words: Sequence[str]) -> Typed:
    """Return what was typed; raise ConfigError with everything that is not an option with its value."""
    problems: list[Problem] = []
    found: dict[str, Located] = {}
    first: dict[str, str] = {}
    for word in _split_options(verb, words, problems):
        if word.name in first:
            message = "given twice" if first[word.name] == word.written else f"the same as {first[word.name]}"
            problems.append(_at(verb, word.written).problem(message, hint="keep one of them"))
            continue
        first[word.name] = word.written
        if (problem := _refuse_outside_eval(verb, word) or _refuse_of_a_training(verb, word)) is not None:
            problems.append(problem)
            continue
        value = _read_value(verb, word, problems)
        if value is not None:
            found[word.name] = value
    _check_run_options(verb, found, problems)
    if problems:
        raise ConfigError(problems)
    return Typed(verb=verb, values=found)


def make_document(typed: Typed, *, has_gpu: bool) -> Located:
    """Return the suite of one experiment that was typed; `has_gpu` decides what `device` and `gpu` default to."""
    verb, options = typed.verb, options_of(typed.verb.name)
    sections: dict[str, dict[str, Located]] = {"suite": {}, "requirements": {}, "eval_args": {}, "args": {}}
    for name, value in typed.values.items():
        option = options.get(name)
        section, key = ("args", name) if option is None else (option.section, option.key)
        if section != "run":
            sections[section][key] = value
    top, requirements = sections["suite"], sections["requirements"]
    gpus = requirements.get("gpu")
    wants_gpu = has_gpu if gpus is None else gpus.value != "0"
    device = top.setdefault("device", _at(verb, "--device", "cuda" if wants_gpu else "cpu"))
    ranks = requirements.get("ddp")
    if gpus is None:
        # So that --ddp 2 on a machine with GPUs needs no --gpu 2 beside it.
        count = "0" if device.value == "cpu" else "1" if ranks is None else ranks.value
        requirements["gpu"] = _at(verb, "--gpu", count)
    args = sections["args"]
    own_names = {ALIASES.get(name, name) for name in args}
    defaults = {name: value for name, value in verb.defaults.items() if name not in own_names}
    has_checkpoint = verb.has_own_checkpoint and CKPT_DIR in own_names
    if has_checkpoint:
        defaults.pop("system", None)  # the checkpoint's training says with which one it goes
    if verb.name == INFER.name and (has_person(typed) or own_names & {"val_dataset", "load_dataset_config"}):
        defaults.pop("dataset", None)
    if verb.default_model is not None and not has_checkpoint and not own_names & _MODEL_NAMES:
        defaults["model_type"] = verb.default_model
    entry = {
        "name": typed.values.get("name") or _at(verb, "--name", NO_NAME),
        "cmd": _at(verb, "", verb.cmd),
        **top,
        "requirements": _at(verb, "", requirements),
        "eval_requirements": _at(verb, "", _for_evals(verb, requirements, device)),
        "eval_args": _at(verb, "", sections["eval_args"]),
        "args": _at(verb, "", {**{name: _at(verb, f"--{name}", text) for name, text in defaults.items()}, **args}),
    }
    return _at(verb, "", {"experiment": _at(verb, "", (_at(verb, "", entry),))})


def has_person(typed: Typed) -> bool:
    """Return whether `hpcbench infer` answers what a person types: without a dataset, or where that is asked for."""
    own_names = {ALIASES.get(name, name) for name in typed.values}
    if typed.text("eval_human") is not None:
        return typed.is_on("eval_human")
    return not own_names & {"dataset", "val_dataset", "load_dataset_config"}


def _for_evals(verb: Verb, requirements: Mapping[str, Located], device: Located) -> dict[str, Located]:
    """Return the resources of evals: after a training one GPU, however many ranks trained."""
    if verb.name == "eval":
        return dict(requirements)
    kept = {name: value for name, value in requirements.items() if name not in {"gpu", "ddp"}}
    return {**kept, "gpu": _at(verb, "--gpu", "0" if device.value == "cpu" else "1")}


def _split_options(verb: Verb, words: Sequence[str], problems: list[Problem]) -> list[_Word]:
    found: list[_Word] = []
    for text in words:
        if text.startswith("--") and len(text) > len("--"):
            written, equals, value = text.partition("=")
            found.append(_Word(written, _name_of(verb, written), [value] if equals else []))
        elif text.startswith("-") and text[1:2].isalpha():
            found.append(_Word(text, text))
        elif found:
            found[-1].values.append(text)
        else:
            is_suite = text.endswith((".yaml", ".yml", ".json"))
            hint = f"hpcbench submit {text} runs a suite" if is_suite else f"hpcbench {verb.name} --help"
            problems.append(
                _at(verb, text).problem(
                    "a word without an option", expected="--NAME VALUE, for example --seed 1", hint=hint
                )
            )
    return found


def _name_of(verb: Verb, written: str) -> str:
    name = written.removeprefix("--").replace("-", "_")
    return aliases_of_run(verb).get(name, name)


def aliases_of_run(verb: Verb) -> Mapping[str, str]:
    """Return other names of the options of the run itself."""
    return RUN_ALIASES if verb.results_option == "output_dir" else {}


def _refuse_outside_eval(verb: Verb, word: _Word) -> Problem | None:
    """Return why an option is not one of the verb eval: it is lm_eval's, or trains."""
    option = options_of(verb.name).get(ALIASES.get(word.name, word.name))
    if verb.name == "sft" and option is not None and option.group in verb.hidden:
        instead = "write a suite with `cmd: dpo`, and run it with `hpcbench submit --cluster local --wait`"
        return _at(verb, word.written).problem("is for learning from preferences, which sft does not do", hint=instead)
    if verb.name != "eval":
        return None
    name = word.name if option is None else option.name
    hint = OTHER_EVAL_OPTIONS.get(name)
    if option is not None and option.group in verb.hidden:
        return _at(verb, word.written).problem("is for a training, which eval does not do", hint=hint or "leave it out")
    return None if hint is None else _at(verb, word.written).problem("is lm_eval's name", hint=hint)


def _refuse_of_a_training(verb: Verb, word: _Word) -> Problem | None:
    """Return why an export has no use for an argument of a training."""
    name = ALIASES.get(word.name, word.name)
    if verb is not EXPORT_MODEL or name not in SftArgs.model_fields or name in options_of(verb.name):
        return None
    hint = "write --quant_bits" if name == "quantization_bit" else "leave it out"
    return _at(verb, word.written).problem("is for a training, and an export does not read it", hint=hint)


def _read_value(verb: Verb, word: _Word, problems: list[Problem]) -> Located | None:
    here = _at(verb, word.written)
    if not word.written.startswith("--"):
        problems.append(here.problem("unknown option", hint="options have two dashes"))
        return None
    if word.name in _OF_A_SCHEDULER:
        hint = "write a suite with `requirements`, and run it with `hpcbench submit`"
        problems.append(
            here.problem("is for jobs that wait in a queue; this verb runs one on this machine, at once", hint=hint)
        )
        return None
    option = _option(verb, word.name)
    if not word.values:
        if option is None or option.kind.base is bool:
            return _at(verb, word.written, "true")
        problems.append(here.problem("no value", expected=option.kind.describe()))
        return None
    takes_list = option is not None and option.kind.base is tuple
    if takes_list and len(word.values) > 1:
        parts = [part for value in word.values for part in value.split(",") if part]
        return _at(verb, word.written, tuple(_at(verb, word.written, part) for part in parts))
    if option is not None and len(word.values) > 1:
        extra = shorten(repr(word.values[1]))
        problems.append(here.problem(f"unexpected {extra} after its value", hint="quote text that holds spaces"))
        return None
    text = " ".join(word.values)
    is_path = option is not None and option.key in _PATH_OR_MAPPING and not text.lstrip().startswith("{")
    if option is not None and option.kind.base is dict and not is_path:
        return _read_mapping(here, text, problems)
    return _at(verb, word.written, None if text in _NOTHING else text)


def _check_run_options(verb: Verb, found: Mapping[str, Located], problems: list[Problem]) -> None:
    """Report wrong values of the run's own options; no suite has them, so the suite's checks leave them out."""
    options = options_of(verb.name)
    for value, option in ((value, options[name]) for name, value in found.items() if name in options):
        if option.section == "run" and not value.value:
            problems.append(value.problem("no value", expected=option.kind.describe()))
        elif option.section == "run":
            take(value, option.kind, problems)


def _option(verb: Verb, name: str) -> Option | None:
    """Return the option of that name or alias; None leaves the name to the rules of `config/aliases.py`."""
    options = options_of(verb.name)
    return options.get(name) or options.get(ALIASES.get(name, ""))


def _read_mapping(here: Located, text: str, problems: list[Problem]) -> Located | None:
    found = parse_yaml(text, file=here.file, problems=[])
    if found is None or found.mapping is None:
        expected = "a mapping, for example '{max_gen_toks: 64}'"
        problems.append(here.problem(f"got {shorten(repr(text))}", expected=expected))
        return None
    return found


def _at(verb: Verb, path: str, value: object = None) -> Located:
    return Located(value=value, file=f"hpcbench {verb.name}", line=None, path=path)  # type: ignore[arg-type]
