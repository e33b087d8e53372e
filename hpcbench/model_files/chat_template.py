"""A tokenizer's chat template, tried on a chat of two turns before anything is queued.

In: the template's text and the system prompt. Out: what no training could do with it, or None. jinja2 renders it with
what transformers gives to templates, in its sandbox; rows of data are tried by the job.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    import jinja2

Turns = Sequence[Mapping[str, str]]

_QUESTION: Final = {"role": "user", "content": "hpcbench asks"}
_ANSWER: Final = {"role": "assistant", "content": "hpcbench answers"}
_THOUGHT: Final = {"role": "assistant", "content": f"<think>\nhpcbench thinks\n</think>\n\n{_ANSWER['content']}"}
_USUAL_TOKENS: Final = ("bos_token", "eos_token", "unk_token", "pad_token")
# SmolLM3 and Nemotron read these in a system prompt or a question.
_SWITCHES: Final = re.compile(r"/(?:no_)?think\b|/system_override\b")
ANOTHER_TEMPLATE: Final = "set template_type to a template of the catalog, such as chatml"


def find_fault(
    template: str, *, system: str | None, tokens: Mapping[str, str], has_parts: bool = False
) -> tuple[str, str, str] | None:
    """Return the argument to blame, what is wrong and what to do; None where a training can use the template.

    Args:
        template: its text.
        system: the system prompt before each chat that has none, or None.
        tokens: special tokens by name, which templates write.
        has_parts: whether contents are lists of parts, as image models' templates take them.
    """
    # One that no file names may be the tokenizer class's own, which only the job knows.
    render = _renderer(template, dict.fromkeys(_USUAL_TOKENS, "") | dict(tokens), has_parts=has_parts)
    try:
        prompt, *wholes = (render([_QUESTION]), render([_QUESTION, _ANSWER]), render([_QUESTION, _THOUGHT]))
    except _RenderingError as error:
        return "template_type", f"the tokenizer's chat template cannot be used: {error}", ANOTHER_TEMPLATE
    for turn in (_QUESTION, _ANSWER):
        if turn["content"] not in wholes[0]:
            message = f"the tokenizer's chat template leaves out what a turn of the {turn['role']} says"
            return "template_type", message, ANOTHER_TEMPLATE
    if not any(whole.startswith(prompt) for whole in wholes):
        message = "the tokenizer's chat template writes a chat with its answer differently from the prompt for it"
        return "template_type", message, ANOTHER_TEMPLATE
    if system is None:
        return None
    hint = f"set system: null, or {ANOTHER_TEMPLATE}"
    try:
        whole = render([{"role": "system", "content": system}, _QUESTION, _ANSWER])
    except _RenderingError as error:
        return "system", f"the tokenizer's chat template takes no system prompt: {error}", hint
    if comparable_text(system) not in comparable_text(whole):
        return "system", "the tokenizer's chat template leaves out the system prompt", hint
    return None


def comparable_text(text: str) -> str:
    """Return a text without what templates change on purpose: spaces, and switches that they obey and take out."""
    return "".join(_SWITCHES.sub("", text).split())


class _RenderingError(Exception):
    """A template cannot be read, or raises."""


def _renderer(template: str, tokens: Mapping[str, str], *, has_parts: bool) -> Callable[[Turns], str]:
    def render(turns: Turns) -> str:
        try:
            return _compile(template).render(
                messages=[_with_parts(turn) for turn in turns] if has_parts else turns,
                tools=None,
                documents=None,
                add_generation_prompt=len(turns) == 1,
                **tokens,
            )
        except Exception as error:  # what a template's expressions can raise has no end
            raise _RenderingError(f"{type(error).__name__}: {error}" if not str(error) else str(error)) from error

    return render


def _with_parts(turn: Mapping[str, str]) -> dict[str, object]:
    return {**turn, "content": [{"type": "text", "text": turn["content"]}]}


@cache
def _compile(template: str) -> jinja2.Template:
    """Return a template ready to render: that takes 20 ms, and a suite's experiments share theirs."""
    return _environment().from_string(template)


@cache
def _environment() -> jinja2.Environment:
    """Return transformers' environment of templates."""
    from jinja2 import ext, nodes, sandbox
    from jinja2.exceptions import TemplateError

    class Generation(ext.Extension):
        """`{% generation %}` marks answers for masks; what it encloses is written as it is."""

        tags = {"generation"}  # noqa: RUF012  # jinja2's declaration

        def parse(self, parser: Any) -> nodes.Node | list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)  # type: ignore[no-any-return]  # an Any of jinja2

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def strftime_now(form: str) -> str:
        return dt.datetime.now().strftime(form)  # noqa: DTZ005  # as transformers does

    def tojson(value: object, ensure_ascii: bool = False, **options: Any) -> str:  # noqa: FBT001, FBT002  # a filter
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    found = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    found.filters["tojson"] = tojson
    found.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    return found
