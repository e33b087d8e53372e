"""A dialogue with a model at a terminal: `python -m hpcbench.worker.infer.chat FOLDER`, as `hpcbench infer` starts it.

In: `job.json`, lines of standard input. Out: answers on standard output while they are generated, all else on standard
error. It keeps nothing. Lines from a pipe are a dialogue too; then nothing but the answers is written.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from hpcbench.data.messages import Message
from hpcbench.errors import EXIT_INTERRUPTED, HpcbenchError
from hpcbench.processes.standard_streams import discard_output, open_streams
from hpcbench.storage.paths import JobPaths
from hpcbench.worker.signals import die_with_launcher

PROMPT: Final = "<<< "
HELP: Final = "/clear forgets the dialogue, /system TEXT sets the system prompt, /exit or Ctrl-D leaves, Ctrl-C stops"
COMMANDS: Final = ("/clear", "/system", "/exit", "/quit", "/help")
_HALF_CHARACTER: Final = "\ufffd"


class Replies(Protocol):
    """What answers a dialogue."""

    def __call__(self, messages: Sequence[Message], turn: int, write: Callable[[str], None]) -> str:
        """Return the answer to a dialogue, which is written meanwhile; a stop by Ctrl-C returns what there is."""
        ...


@dataclass(slots=True, kw_only=True)
class Dialogue:
    """What was said, and what is done with a line that is typed."""

    reply: Replies
    write: Callable[[str], None]
    remark: Callable[[str], None]
    """Takes what is not an answer."""
    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    turn: int = 0

    def take(self, line: str) -> bool:
        """Answer a line, or do what it commands; return whether the dialogue goes on."""
        text = line.strip()
        word, _, rest = text.partition(" ")
        if not text:
            return True
        if word in {"/exit", "/quit"}:
            return False
        if word == "/clear":
            self.messages.clear()
        elif word == "/system":
            self.system = rest.strip() or None
            self.messages.clear()
        elif word == "/help":
            self.remark(HELP)
        else:
            self._answer(text)
        return True

    def _answer(self, text: str) -> None:
        system: list[Message] = [] if self.system is None else [{"role": "system", "content": self.system}]
        asked: Message = {"role": "user", "content": text}
        answer = self.reply([*system, *self.messages, asked], self.turn, self.write)
        self.write("\n")
        self.turn += 1
        if answer.strip():
            self.messages += [asked, {"role": "assistant", "content": answer}]


class AnswerStream:
    """Writes an answer while it grows; what may still turn out to be its end, or half a character, stays back."""

    def __init__(self, read: Callable[[Sequence[int]], str], ends: Sequence[str], write: Callable[[str], None]) -> None:
        self._read = read
        self._ends = [end for end in ends if end]
        self._write = write
        self._num_written = 0
        self.text = ""
        """All of the answer so far."""

    def __call__(self, ids: Sequence[int]) -> None:
        """Take all tokens so far."""
        self.text = self._read(ids)
        sure = self.text.rstrip(_HALF_CHARACTER)
        back = max((_overlap(sure, end) for end in self._ends), default=0)
        self.finish(sure[: len(sure) - back])

    def finish(self, text: str) -> None:
        """Write what of the text is not written yet."""
        if len(text) > self._num_written:
            new, self._num_written = text[self._num_written :], len(text)
            self._write(new)  # Ctrl-C may end it, and what was shown must not be shown again


def _overlap(text: str, end: str) -> int:
    """Return how many characters at the end of a text begin `end`."""
    return next((size for size in range(min(len(end), len(text)), 0, -1) if text.endswith(end[:size])), 0)


def make_replies(job: JobPaths) -> tuple[Replies, str | None]:
    """Load what answers; return its replies and the system prompt that the dialogue begins with.

    Raises:
        WorkerError: it cannot be loaded.
    """
    from hpcbench.schemas.request import read_request
    from hpcbench.worker.infer.engine import GenerationOptions, Prompt, trim
    from hpcbench.worker.infer.model import find_answering, load_answering
    from hpcbench.worker.infer.transformers_engine import TransformersEngine

    answering = find_answering(read_request(job.request))
    options = GenerationOptions.from_args(answering.args)
    template, tokenizer = answering.template, answering.tokenizer
    ends = template.answer_ends
    engine = TransformersEngine(
        load_answering(answering),
        tokenizer,
        ends=ends,
        options=options,
        num_positions=answering.num_positions,
        num_gpus=answering.num_gpus,
    )
    system, template.system = template.system, None  # /system changes it
    limit = answering.args.max_length if answering.num_positions is None else answering.num_positions - 1
    limit = min(limit, answering.args.max_length)

    def read(ids: Sequence[int]) -> str:
        return trim(str(tokenizer.decode(ids, skip_special_tokens=True)), ends, options.stop_words)

    def reply(messages: Sequence[Message], turn: int, write: Callable[[str], None]) -> str:
        prompt = Prompt(index=turn, input_ids=tuple(template.prefix_ids(messages)[-limit:]))
        stream = AnswerStream(read, (ends.text, *options.stop_words), write)
        # With beams there is no answer to follow before the end.
        shows = answering.infer.stream and options.num_beams == 1
        try:
            (answer,) = engine.answer([prompt], on_tokens=stream if shows else None)
        except KeyboardInterrupt:
            stream.finish(stream.text)
            return stream.text
        stream.finish(answer.text)
        return answer.text

    return reply, system


def main(argv: list[str]) -> int:
    """Hold one dialogue; return the exit code."""
    open_streams()
    try:
        return _converse(JobPaths(Path(argv[0])))
    except HpcbenchError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # as of `hpcbench infer ... | head`
        discard_output()
        return 0


def _converse(job: JobPaths) -> int:
    has_person = sys.stdin.isatty()
    if has_person:
        sys.stderr.write("loading ...\n")
    with _library_output_aside():
        _quiet_libraries()
        reply, system = make_replies(job)

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def remark(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    dialogue = Dialogue(reply=reply, write=write, remark=remark, system=system)
    if has_person:
        import readline  # noqa: F401  # input() then has a history and keys to edit with

        remark(HELP)
    while (line := _read_line(has_person=has_person)) is not None and dialogue.take(line):
        pass
    return 0


def _read_line(*, has_person: bool) -> str | None:
    """Return the next line, None at the end of them."""
    if not has_person:
        line = sys.stdin.readline()
        return line or None
    try:
        return input(PROMPT)
    except EOFError:
        sys.stdout.write("\n")
        return None


@contextmanager
def _library_output_aside() -> Iterator[None]:
    """Keep what libraries print out of the dialogue, also from C; show it where they fail for a reason of their own."""
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as aside:
        saved = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
        for descriptor in saved:
            os.dup2(aside.fileno(), descriptor)
        printed = b""
        try:
            yield
        except Exception as error:
            if not isinstance(error, HpcbenchError):
                sys.stderr.flush()
                aside.seek(0)
                printed = aside.read()
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, copy in saved.items():
                os.dup2(copy, descriptor)
                os.close(copy)
            os.write(2, printed)


def _quiet_libraries() -> None:
    """Switch off bars and remarks of libraries."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _leave(code: int) -> NoReturn:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    os._exit(code)  # taking torch down takes seconds


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except (OSError, ValueError):
        discard_output()


if __name__ == "__main__":
    die_with_launcher()
    _leave(main(sys.argv[1:]))
