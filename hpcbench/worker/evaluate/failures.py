"""Mistakes of an eval task in sentences that say what to do, in place of lm-eval's and its libraries' exceptions.

In: an exception while tasks are loaded or run. Out: a WorkerError. Running out of memory, a full disk and being told to
stop are not mistakes of a task, and pass through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import jinja2
import yaml

from hpcbench.errors import PREFETCH, WorkerError

LOAD_DATA = f"run `{PREFETCH}` where there is internet; for a local task file check its data paths"
TASK_FILE = "correct the task file; lm-eval's docs/task_guide.md lists its keys"
_DATA_LIBRARIES = frozenset({"datasets", "huggingface_hub", "fsspec", "httpx", "requests", "urllib3", "pyarrow"})
_LOADERS = frozenset(f"lm_eval.tasks.{name}" for name in ("manager", "_factory", "_index", "_yaml_loader"))
_OF_A_TASK = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    StopIteration,
    SyntaxError,
    TypeError,
    ValueError,
    jinja2.TemplateError,
    yaml.YAMLError,
)
"""What code and settings of a task raise; a RuntimeError or OSError of a run may be the machine's."""


@contextmanager
def explain_loading(name: str) -> Iterator[None]:
    """Turn what goes wrong while the tasks of an eval dataset are loaded into a WorkerError.

    Raises:
        WorkerError: with the dataset's name, what is wrong and what to do.
    """
    try:
        yield
    except (WorkerError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001  # code of a task may raise anything
        raise _explain(f"eval dataset {name!r}", error, needs_data=True) from _cause_to_show(error)


@contextmanager
def explain_running(name: str) -> Iterator[None]:
    """Turn mistakes of a task's templates, fields, metrics or code that show up in a run into a WorkerError.

    Raises:
        WorkerError: with the dataset's name, what is wrong and what to do.
    """
    try:
        yield
    except _OF_A_TASK as error:
        raise _explain(f"eval dataset {name!r}", error, needs_data=False) from error


def _explain(what: str, error: Exception, *, needs_data: bool) -> WorkerError:
    message, hint = _find_words(error, _first_line(error), needs_data=needs_data)
    return WorkerError(f"{what}: {message}", hint=hint)


def _find_words(error: Exception, said: str, *, needs_data: bool) -> tuple[str, str]:  # noqa: PLR0911  # one rule a return
    """Return what is wrong, and what to do."""
    match error:
        case StopIteration() | IndexError() if needs_data and (isinstance(error, StopIteration) or "size 0" in said):
            return "its data file holds no rows", "check data_files in the task file"
        case ImportError() | SyntaxError():
            return _find_import_words(error, said)
        case jinja2.TemplateError():
            message = f"a template of its task file (doc_to_text, doc_to_target, doc_to_choice) is wrong: {said}"
            return message, "templates may use the columns of the data; correct the task file"
        case AttributeError() if "has no function" in said:
            return f"its Python code lacks a function: {said}", TASK_FILE
        case TypeError() if key := re.search(r"__init__\(\) got an unexpected keyword argument '(.*)'", said):
            return f"its task file has the key {key[1]!r}, which lm-eval does not know", TASK_FILE
        case RuntimeError() if "Dataset scripts are no longer supported" in said:
            hint = "evaluate a task whose data is in files, or point dataset_path at a copy in parquet or jsonl"
            return f"its data is made by a program, which `datasets` no longer runs: {said}", hint
    source = _source(error.__traceback__)
    if isinstance(error, KeyError) and error.args == (None,) and source == "lm-eval":
        return "its metric_list names a metric that lm-eval does not have, without an `aggregation`", TASK_FILE
    if isinstance(error, KeyError) and source == "data":
        hint = "splits (test_split, fewshot_split, ...) and columns are named in the task file"
        return f"its data has no split or column {said!r}", hint
    if needs_data and source == "data":
        return f"its data cannot be loaded here: {_data_cause(error)}", LOAD_DATA
    if source == "lm-eval":
        return f"lm-eval cannot use its task file: {_in_words(error)}", TASK_FILE
    if source == "model":
        hint = "eval_args.gen_kwargs and the task's generation_kwargs are arguments of transformers' generate()"
        return f"the model could not answer: {_in_words(error)}", hint
    place = "reading its data" if source == "data" else "its Python code"
    return f"{place} failed: {_in_words(error)}", "the job's log has the traceback"


def _find_import_words(error: ImportError | SyntaxError, said: str) -> tuple[str, str]:
    if isinstance(error, SyntaxError):
        return f"its Python code {error.filename}:{error.lineno} is not valid: {error.msg}", "correct that file"
    if said.startswith("Cannot import module"):
        module = said.split("'")[1]
        hint = f"put {module}.py beside the task file, or install the package that has it where jobs run"
        return f"its Python code is not there: {said}", hint
    return f"it needs a package that is not installed: {said}", f"install {error.name or 'it'} where jobs run"


def _source(traceback: TracebackType | None) -> str:
    """Return whose code raised: the data libraries', the model's, lm-eval's, or that of the task itself."""
    modules: list[str] = []
    while traceback is not None:
        modules.append(str(traceback.tb_frame.f_globals.get("__name__", "")))
        traceback = traceback.tb_next
    if any(module.split(".")[0] in _DATA_LIBRARIES for module in modules):
        return "data"
    if any(module.split(".")[0] == "transformers" for module in modules):
        return "model"
    last = modules[-1] if modules else ""
    is_built_in_task = last.startswith("lm_eval.tasks.") and last not in _LOADERS
    return "lm-eval" if last.startswith("lm_eval.") and not is_built_in_task else "task"


def _data_cause(error: Exception) -> str:
    """Return the reason in one line, not the library's chain of HTTP errors or its "an error occurred"."""
    cause = error.__cause__
    is_vague = type(error).__name__.startswith("DatasetGeneration") and cause is not None
    return _first_line(cause if is_vague and isinstance(cause, Exception) else error)


def _in_words(error: Exception) -> str:
    """Return what an exception says, with what its kind means where the text alone is a bare name."""
    said = _first_line(error)
    if isinstance(error, KeyError) and error.args:
        return said if " " in str(error.args[0]) else f"it names {error.args[0]!r}, which is not there"
    return said if said != type(error).__name__ else f"{said} without a message"


def _first_line(error: Exception) -> str:
    # A KeyError's own text is in quotes, and some of lm-eval's ImportErrors hold two sentences.
    has_parts = isinstance(error, KeyError | ImportError) and error.args
    text = " ".join(map(str, error.args)) if has_parts else str(error)
    lines = text.strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _cause_to_show(error: Exception) -> Exception | None:
    """Return the error whose traceback tells something; that of a download is a screen of HTTP."""
    return None if _source(error.__traceback__) == "data" else error
