"""The help of the verbs that run one job here and now.

In: a verb and a width. Out: text: each option with what it takes, its default, and one sentence, in groups. Pure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from hpcbench.cli.single_run.options import VERBS, Option, Verb, options_of
from hpcbench.config.aliases import ALIASES, UNSUPPORTED

MIN_WIDTH = 40
MAX_WIDTH = 100
_INDENT = " " * 6


def help_text(verb: Verb, *, width: int) -> str:
    """Return the whole help of a verb, in lines of at most `width` columns (40 to 100)."""
    width = max(MIN_WIDTH, min(width, MAX_WIDTH))
    options = options_of(verb.name)
    lines = [f"Usage: hpcbench {verb.name} [--NAME VALUE]...", "", *textwrap.wrap(verb.summary, width), ""]
    notes = (
        "Numbers and booleans are taken as the original's scripts write them (true, True, 1); a bare --NAME switches"
        " on; lists are a,b or a b; null takes away a default. Names may be written with - for _."
    )
    lines += [*textwrap.wrap(notes, width), "", "Example:", *_wrap_command(verb.example, width)]
    for group in dict.fromkeys(option.group for option in options.values() if option.group not in verb.hidden):
        lines += ["", f"{group}:"]
        for option in options.values():
            if option.group == group:
                lines += describe_option(option, width=width)
    aliases = [f"{alias} ({name})" for alias, name in ALIASES.items()]
    lines += ["", "Other names that are taken:", *_wrap_list(aliases, width)]
    refused = "Known from the original, but not done by this version; values that ask for nothing are taken:"
    lines += ["", *textwrap.wrap(refused, width), *_wrap_list(_not_done(), width)]
    lines += ["", *textwrap.wrap("Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.", width)]
    return "\n".join(lines) + "\n"


def _not_done() -> list[str]:
    """Return the arguments of the original that no verb has a use for."""
    return sorted(UNSUPPORTED.keys() - {name for verb in VERBS for name in options_of(verb)})


def describe_option(option: Option, *, width: int) -> list[str]:
    """Return the lines of one option: its name, what it takes and its default, then its sentence."""
    head = f"  --{option.name}  {option.kind.describe()}"
    default = f"[{option.default}]"
    if len(head) + len(default) + 2 <= width:
        first = [f"{head}  {default}"]
    else:
        takes = f"{option.kind.describe()}  {default}"
        first = [f"  --{option.name}", *textwrap.wrap(takes, width, initial_indent=_INDENT, subsequent_indent=_INDENT)]
    text = textwrap.wrap(
        " ".join(option.help.split()).replace("`", ""), width, initial_indent=_INDENT, subsequent_indent=_INDENT
    )
    return [*first, *text]


def _wrap_list(words: Iterable[str], width: int) -> list[str]:
    return textwrap.wrap(", ".join(words), width, initial_indent="  ", subsequent_indent="  ", break_long_words=False)


def _wrap_command(command: str, width: int) -> list[str]:
    """Return a command as a shell takes it, continued with backslashes."""
    lines = textwrap.wrap(
        command,
        width - 2,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]
