"""What plan says of a model's files: each folder is read once for a suite, and checked for each experiment.

In: arguments and where their values were written. Out: problems at those values, and the models that are only ids.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpcbench.catalog.models import MODELS, TEMPLATES
from hpcbench.errors import Problem, name_first
from hpcbench.hub.models import find_files, locate_model
from hpcbench.model_files.checks import check_eval_length, check_model
from hpcbench.model_files.fault import Fault
from hpcbench.model_files.folder import ModelFolder, read_model_folder
from hpcbench.model_files.image_models import find_image_model
from hpcbench.model_files.quantized_checks import check_export, check_merging
from hpcbench.model_files.weights import ModelFileError
from hpcbench.schemas.arguments import EvalArgs, ExportArgs, SftArgs
from hpcbench.storage.located_yaml import Located


@dataclass(slots=True, kw_only=True)
class ModelReader:
    """Reads the models of a suite, each once."""

    found: dict[Path, ModelFolder | ModelFileError] = field(default_factory=dict)
    unchecked: dict[str, None] = field(default_factory=dict)
    """Models that are only ids here, in the order met."""

    def read(self, args: SftArgs, environ: Mapping[str, str]) -> ModelFolder | None:
        """Return the model that the arguments name, or None where its files are not here.

        Raises:
            ModelFileError: a file of a local folder is missing or cannot be used.
        """
        place = locate_model(args, environ)
        if place is None:
            return None
        path = find_files(place, environ)
        if path is None:
            self.unchecked[str(place)] = None
            return None
        if path not in self.found:
            try:
                # Of a model in a hub's cache a job may have more files than this machine.
                self.found[path] = read_model_folder(path, name=str(place), is_complete=path == place)
            except ModelFileError as error:
                self.found[path] = error
        found = self.found[path]
        if isinstance(found, ModelFileError):
            raise found
        return found

    def reads_images(self, args: SftArgs) -> bool | None:
        """Return whether the model that the arguments name reads images; None where that is not known here."""
        try:
            model = self.read(args, os.environ)
        except ModelFileError:
            return None
        if model is not None:
            return find_image_model(model.config) is not None
        entry = MODELS.lookup(args.model_type) if args.model_id_or_path is None and args.model_type else None
        return None if entry is None else entry.reads_images

    def remarks(self) -> tuple[str, ...]:
        """Return what to say of the models that were not checked."""
        if not self.unchecked:
            return ()
        names = name_first(list(self.unchecked))
        return (f"not checked: {names}: only an id here; jobs look at the model's files before they load it",)


def find_chat_template(reader: ModelReader, args: SftArgs, env: Mapping[str, str]) -> str | None:
    """Return the text of the chat template, or of all that the tokenizer has; None where it is not known here."""
    if args.template_type is not None:
        named = TEMPLATES.lookup(args.template_type)
        return None if named is None else named.jinja
    try:
        model = reader.read(args, {**os.environ, **env})
    except ModelFileError:
        return None
    # Without one the catalog's template is taken, and without that the messages go in one per line.
    entry = MODELS.lookup(args.model_type) if args.model_type is not None else None
    templates = None if model is None else model.tokenizer.templates
    if templates is None or (not templates and entry is not None and entry.template is not None):
        return None
    return "\n".join(templates.values())


def check_model_files(
    reader: ModelReader,
    args: SftArgs,
    given: Mapping[str, Located],
    *,
    at: Located,
    env: Mapping[str, str],
    trains: bool,
    has_chats: bool,
    evals: Mapping[str, EvalArgs],
    eval_given: Mapping[str, Located],
) -> list[Problem]:
    """Return what the model's files say against the training arguments and those of the evals.

    Args:
        reader: of the suite.
        args: of the experiment.
        given: its arguments as they were written.
        at: the experiment.
        env: its environment.
        trains: whether the model is trained, not only evaluated.
        has_chats: whether prompts may be made by the chat template.
        evals: arguments of its evals.
        eval_given: those that all of its evals share, as they were written.
    """
    try:
        model = reader.read(args, {**os.environ, **env})
    except ModelFileError as error:
        fault = Fault(argument="model_id_or_path", message=error.message, hint=error.hint)
        return [_problem(fault, given, at)]
    if model is None:
        return []
    problems = [_problem(fault, given, at) for fault in check_model(args, model, trains=trains, has_chats=has_chats)]
    lengths = dict.fromkeys(eval_args.max_length for eval_args in evals.values())
    found = [check_eval_length(length, model) for length in lengths]
    if trains and any(eval_args.merge_lora for eval_args in evals.values()):
        found.append(check_merging("merge_lora", model))
    return problems + [_problem(fault, eval_given, at) for fault in found if fault is not None]


def check_exported_model(
    reader: ModelReader,
    export: ExportArgs,
    args: SftArgs,
    given: Mapping[str, Located],
    *,
    at: Located,
    env: Mapping[str, str],
) -> list[Problem]:
    """Return what the model's files say against an export; what is wrong with the files, `check_model_files` says."""
    try:
        model = reader.read(args, {**os.environ, **env})
    except ModelFileError:
        return []
    return [] if model is None else [_problem(fault, given, at) for fault in check_export(export, model)]


def _problem(fault: Fault, given: Mapping[str, Located], at: Located) -> Problem:
    names = {fault.argument, "model_type"} if fault.argument == "model_id_or_path" else {fault.argument}
    where = next((given[name] for name in (fault.argument, *names) if name in given), at)
    return where.problem(fault.message, expected=fault.expected, hint=fault.hint)
