"""The verbs that run one job on this machine: sft, infer, eval, export-model.

The options are the fields of the arguments' models, made when such a verb runs, shows its help or is completed, and
never for another verb.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer

from hpcbench.cli.completion import complete_from
from hpcbench.cli.conventions import EXIT_FAILED, Verb, add_verb, heading

if TYPE_CHECKING:
    from hpcbench.cli.single_run.options import Option

_METAVARS = {bool: "BOOL", int: "INTEGER", float: "NUMBER", str: "TEXT", tuple: "LIST", dict: "MAPPING"}


class ArgumentsVerb(Verb):
    """A verb with an option for each field of the arguments' models."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options, made on first use."""
        if not self.params:
            self.params = make_click_options(str(self.name))
        return super().get_params(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Let click answer --help and completion; the verb reads the rest: click has no form for `--dataset a b`."""
        asks_for_help = not {"-h", "--help"}.isdisjoint(args)
        if asks_for_help or ctx.resilient_parsing:
            return super().parse_args(ctx, ["--help"] if asks_for_help else args)
        ctx.args = args
        return args

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options by group, then the arguments of ms-swift that no verb has a use for."""
        from hpcbench.cli.single_run.options import VERBS, options_of
        from hpcbench.config.refused_arguments import REFUSED

        super().format_options(ctx, formatter)
        names = sorted(REFUSED.keys() - {name for verb in VERBS for name in options_of(verb)})
        with formatter.section(heading("Not supported by this version; values that ask for nothing are taken")):
            formatter.write_text(", ".join(names))


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    example = "hpcbench sft --model ./Qwen3-0.6B --dataset train.jsonl --lora_rank 16"
    add_verb(app, sft, group="Run", example=example, cls=ArgumentsVerb)
    example = "hpcbench infer --ckpt_dir output/Qwen3-0.6B/lora-v0/train/checkpoints/best"
    add_verb(app, infer, group="Run", example=example, cls=ArgumentsVerb)
    example = "hpcbench eval --model ./Qwen3-0.6B --eval_dataset arc --eval_limit 50"
    add_verb(app, evaluate, group="Run", example=example, cls=ArgumentsVerb, name="eval")
    example = "hpcbench export-model --ckpt_dir my-adapter --output_dir merged-model"
    add_verb(app, export_model, group="Run", example=example, cls=ArgumentsVerb, name="export-model")


def sft(context: typer.Context) -> None:
    """Fine-tune one model on this machine, without a queue.

    It takes the arguments of ms-swift's sft.sh. Ctrl-C stops it with a checkpoint. A bare --NAME switches on; lists are
    a,b or a b; null takes away a default. Names may be written with - for _.
    """
    _run("sft", context.args)


def infer(context: typer.Context) -> None:
    """Let a model or a checkpoint answer: you, or the prompts of a dataset.

    It takes the arguments of ms-swift's infer.sh. Without a dataset you type the prompts; /help says what else, Ctrl-C
    stops an answer, Ctrl-D ends it. A checkpoint may be hpcbench's, peft's or transformers' own.
    """
    _run("infer", context.args)


def evaluate(context: typer.Context) -> None:
    """Evaluate one model on this machine, without a queue.

    It is an untrained model, or with --ckpt_dir a checkpoint of hpcbench sft. A bare --NAME switches on; lists are a,b
    or a b; null takes away a default. Names may be written with - for _.
    """
    _run("eval", context.args)


def export_model(context: typer.Context) -> None:
    """Merge an adapter into its base, or quantize a model, on this machine.

    It takes the arguments of ms-swift's export. A checkpoint may be hpcbench's, peft's or transformers' own. Ctrl-C
    stops it; the model's folder appears whole or not at all, and never onto another.
    """
    _run("export-model", context.args)


def _run(name: str, words: list[str]) -> None:
    from hpcbench.cli.single_run.options import VERBS
    from hpcbench.cli.single_run.run import run_here

    if not run_here(VERBS[name], words, default_root=os.environ.get("HPCBENCH_SAVE_DIR")):
        raise typer.Exit(EXIT_FAILED)


def make_click_options(verb: str) -> list[Any]:
    """Return click's options of a verb, as typer makes them."""
    from hpcbench.cli.single_run.command_line import aliases_of_run
    from hpcbench.cli.single_run.options import VERBS, options_of
    from hpcbench.config.aliases import ALIASES

    parameters = []
    options = options_of(verb)
    known = {**ALIASES, **aliases_of_run(VERBS[verb])}
    aliases = {alias: name for alias, name in known.items() if alias not in options}
    for option in options.values():
        other_names = (alias for alias, name in aliases.items() if name == option.name)
        default = typer.Option(
            None,
            *(f"--{name}" for name in (option.name, *other_names)),
            metavar=_METAVARS[option.kind.base] if option.kind.base is not None else "CHOICE",
            help=describe(option),
            hidden=option.group in VERBS[verb].hidden,
            rich_help_panel=option.group,
            show_default=False,
            autocompletion=complete_from(tuple(known_values(option))),
        )
        parameters.append(
            inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=str)
        )

    def template(**_: str) -> None: ...

    template.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect's own protocol
    app = typer.Typer(add_completion=False)
    app.command()(template)
    return typer.main.get_command(app).params


def describe(option: Option) -> str:
    """Return the help of an option: its sentence, and what it takes unless its metavar says that."""
    takes = ", ".join(option.kind.choices) or option.kind.bounds.removeprefix(", ")
    notes = "; ".join([*([takes] if takes else []), f"default: {option.default}"])
    return f"{' '.join(option.help.split()).replace('`', '')}  [{notes}]"


def known_values(option: Option) -> Iterable[str]:
    """Return the values that completion offers: choices, and names from the catalogs."""
    from hpcbench.catalog.datasets import DATASETS
    from hpcbench.catalog.models import MODELS, TEMPLATES

    catalogs = {
        "model_type": MODELS.names,
        "template_type": TEMPLATES.names,
        "dataset": DATASETS.names,
        "val_dataset": DATASETS.names,
    }
    if option.name in catalogs:
        return catalogs[option.name]()
    return ("true", "false") if option.kind.base is bool else option.kind.choices
