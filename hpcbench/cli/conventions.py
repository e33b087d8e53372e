"""What the command line does beyond typer: exit codes, help in groups, readers that leave early, a bare `--watch`."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from hpcbench.errors import ConfigError, PlanError, Problem, ReportError
from hpcbench.processes.standard_streams import discard_output

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BROKEN_PIPE = 141
"""What a shell shows for a program that SIGPIPE ended, as `cat` in `cat file | head` is."""
WATCH = "--watch"
BY_PROFILE = 0.0
"""The value of a `--watch` without a number."""


def exit_code(error: Exception) -> int:
    """Return the exit code for an expected error: 2 for wrong usage or config, else 1."""
    return EXIT_USAGE if isinstance(error, ConfigError | PlanError | ReportError) else EXIT_FAILED


def add_verb(
    app: typer.Typer,
    verb: Callable[..., None],
    *,
    group: str,
    example: str,
    name: str | None = None,
    cls: type[Verb] | None = None,
) -> None:
    """Add a verb to the command line, listed under the title `group`; its docstring is the help."""
    app.command(name, cls=cls or Verb, rich_help_panel=group, epilog=example)(verb)


class Verb(TyperCommand):
    """A verb; its help lists the options by group and ends with an example."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take options with _ for -, and refuse another tool's with what hpcbench has in their place."""
        if not ctx.resilient_parsing:
            args = [self._own_option(arg) for arg in args]
            self._refuse_twice(ctx, args)
        return super().parse_args(ctx, args)

    def _refuse_twice(self, ctx: Any, args: Sequence[str]) -> None:
        """Refuse an option that takes one value and was typed twice: click drops the first in silence."""
        _, _, typed = self.make_parser(ctx).parse_args(args=list(args))
        for param, count in Counter(typed).items():
            single = isinstance(param, TyperOption) and not param.multiple and not param.is_flag
            if count > 1 and single:
                raise _refusal(str(self.name), f"{max(param.opts, key=len)}: given twice", hint="keep one of them")

    def _own_option(self, argument: str) -> str:
        known = {name for param in self.params for name in param.opts}
        name, equals, value = argument.partition("=")
        if not name.startswith("--") or name in known:
            return argument
        if (dashed := name.replace("_", "-")) in known:
            return f"{dashed}{equals}{value}"
        from hpcbench.config.other_tools import OTHER_OPTIONS

        if name in OTHER_OPTIONS:
            raise _refusal(str(self.name), f"no option {name}", hint=OTHER_OPTIONS[name])
        return argument

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options under the titles of their groups."""
        write_sections(formatter, _option_rows(self.get_params(ctx), ctx))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  # click's signature
        """Write the example as a shell takes it."""
        if self.epilog:
            with formatter.section(heading("Example")):
                formatter.write(f"{' ' * formatter.current_indent}{self.epilog}\n")


class Verbs(TyperGroup):
    """All verbs, listed by group; ends quietly where a reader of their output leaves early, as `head` does."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs by group, then the options."""
        width = formatter.width - 6 - max(len(name) for name in self.commands)
        verbs = ((name, verb) for name, verb in self.commands.items() if isinstance(verb, Verb))
        write_sections(
            formatter, ((str(verb.rich_help_panel), name, verb.get_short_help_str(width)) for name, verb in verbs)
        )
        write_sections(formatter, _option_rows(self.get_params(ctx), ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb; refuse another tool's with what hpcbench has in its place."""
        name = args[0]
        if not ctx.resilient_parsing and name not in self.commands:
            _refuse_other_verb(name)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb that was named."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except BrokenPipeError as error:
            discard_output()
            raise typer.Exit(EXIT_BROKEN_PIPE) from error


class WatchingVerb(Verb):
    """A verb whose `--watch` may be bare or name seconds: `--watch`, `--watch 60`, `--watch=60`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare `--watch` its value, then parse as usual."""
        return super().parse_args(ctx, list(complete_watch(args)))


def _refuse_other_verb(name: str) -> None:
    from hpcbench.config.other_tools import OTHER_COMMANDS, OTHER_VERBS

    if (other := OTHER_COMMANDS.get(name)) is not None:
        raise _refusal(name, other.why, hint=other.typed)
    if name in OTHER_VERBS:
        raise _refusal(name, "no such verb", hint=OTHER_VERBS[name])
    if name.endswith((".yaml", ".yml", ".json")):
        raise _refusal(name, "a file without a verb", hint=f"hpcbench submit {shlex.quote(name)}")


def _refusal(name: str, message: str, *, hint: str) -> ConfigError:
    return ConfigError([Problem(file=f"hpcbench {name}", line=None, path="", message=message, hint=hint)])


def _option_rows(params: Iterable[Any], ctx: Any) -> Iterator[tuple[str, str, str]]:
    for param in params:
        record = param.get_help_record(ctx)
        if record is not None and param.param_type_name == "argument":
            # typer adds the Python type, as in NAME <list[str]>.
            yield "Arguments", param.metavar, record[1]
        elif record is not None:
            yield getattr(param, "rich_help_panel", None) or "Options", *record


def write_sections(formatter: Any, rows: Iterable[tuple[str, str, str]]) -> None:
    """Write rows of title, name and text, those of one title together and in the order of first appearance."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for title, name, text in rows:
        sections.setdefault(title, []).append((_style(name, fg="cyan"), text))
    for title, lines in sections.items():
        with formatter.section(heading(title)):
            formatter.write_dl(lines)


def heading(title: str) -> str:
    """Return a heading of a help text."""
    return _style(title, bold=True)


def _style(text: str, **style: Any) -> str:
    """Return the text in colour; click takes the colour out where the output is not a terminal, NO_COLOR it ignores."""
    is_plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return text if is_plain else typer.style(text, **style)


def complete_watch(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the arguments, `--watch=0` for a `--watch` that no number follows (pure)."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        yield f"{WATCH}={BY_PROFILE:.0f}" if argument == WATCH and not _is_number(following) else argument


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
