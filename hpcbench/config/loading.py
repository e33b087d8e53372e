"""Suites from files: every experiment expanded, typed and checked, or one ConfigError with every problem found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path

from hpcbench.catalog.models import MODELS
from hpcbench.config.aliases import ArgumentNames
from hpcbench.config.catalog_checks import remark_on_code
from hpcbench.config.ckpt_from import CKPT_FROM, Makers, Variant, as_member, check_makers, parents_first
from hpcbench.config.commands import read_cmd
from hpcbench.config.experiment_builder import ExperimentBuilder
from hpcbench.config.layers import (
    ARGUMENTS,
    ELSEWHERE,
    OWN_ARGUMENTS,
    PER_DATASET,
    SECTION_KEYS,
    SECTIONS,
    Layer,
    merge,
    parse_overrides,
    read_layer,
    read_section,
)
from hpcbench.config.local_inputs import OVERRIDE, SuitePlace
from hpcbench.config.matrix import NAME, Target, expand_matrix, variant_names
from hpcbench.config.names import MAX_SUITE_NAME_LENGTH, NAME_RULE, SUITE_NAME_RULE, name_error
from hpcbench.config.other_tools import describe_other_file
from hpcbench.config.report_block import read_report
from hpcbench.config.suite_files import SuiteFile, find_suite_files
from hpcbench.config.typed_fields import take_count, take_text
from hpcbench.errors import ConfigError, Problem, did_you_mean
from hpcbench.hub.repository import repository_of
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.schemas.request import TRAININGS, Command
from hpcbench.schemas.suite import Experiment, Suite
from hpcbench.storage.located_yaml import Located, relocate, show

MAX_REPEATS = 1000
NamesTaken = Callable[[str], AbstractSet[str]]
"""Name of a suite -> names of its experiments that have results."""
_A_SUITE = "a mapping with the key `experiment`"


def load_suites(
    paths: Sequence[Path],
    *,
    overrides: Sequence[str] = (),
    typed_in: Path | None = None,
    taken: NamesTaken = lambda _: frozenset(),
) -> list[Suite]:
    """Load every suite in files, and in folders and those below them, in the order of `paths`.

    The `--set` texts in `overrides`, for example `args.learning_rate=1e-4`, win over everything in the files. Relative
    paths in them start from `typed_in`, by default the current folder. `taken` names the experiments of a suite that
    have results: where names were made in another way once, these keep theirs.

    Raises:
        ConfigError: with all problems of all files.
    """
    problems: list[Problem] = []
    folder = typed_in or Path.cwd()
    here = SuitePlace(name="", file=folder / OVERRIDE, typed_in=folder)
    set_names = _argument_names(here)
    set_layer = parse_overrides(overrides, names=set_names, problems=problems)
    suites: list[Suite] = []
    by_name: dict[str, SuiteFile] = {}
    for file in find_suite_files([Path(path) for path in paths], problems):
        place = SuitePlace(name=file.path.stem, file=file.path, typed_in=folder)
        if (error := name_error(place.name, MAX_SUITE_NAME_LENGTH)) is not None:
            problems.append(
                _at(file.label, error, expected=f"a file name of {SUITE_NAME_RULE}", hint="rename the file")
            )
        elif (other := by_name.setdefault(place.name.lower(), file)) is not file:
            hint = "results are kept by suite name; rename one of the files"
            problems.append(_at(file.label, f"{other.label} is a suite {other.path.stem!r} already", hint=hint))
        if file.document is not None:
            names = _argument_names(place)
            loader = _Loader(place=place, set_layer=set_layer, problems=problems, names=names, taken=taken(place.name))
            experiments = loader.load(file.document)
            remarks = (*names.remarks, *set_names.remarks)
            suite = _make_suite(place, experiments, remarks)
            suites.append(replace(suite, overrides=tuple(overrides), typed_in=folder, report=loader.report))
    if problems:
        raise ConfigError(_in_file_order(problems))
    return suites


def load_document(document: Located, *, file: Path, also: Sequence[str] = (), has_person: bool = False) -> Suite:
    """Load a suite from a document that is not a file, by the same rules.

    `file` need not exist: it names the suite, and relative paths start from its folder. An unknown argument may have
    meant one of the names in `also`, which the caller read itself. With `has_person` somebody at a terminal types the
    prompts of `cmd: infer`.

    Raises:
        ConfigError: with all problems.
    """
    problems: list[Problem] = []
    place = SuitePlace(name=file.stem, file=file, has_person=has_person)
    names = replace(_argument_names(place), elsewhere={}, also=tuple(also))
    loader = _Loader(place=place, set_layer=Layer(), problems=problems, names=names)
    experiments = loader.load(document)
    if problems:
        raise ConfigError(_in_file_order(problems))
    return _make_suite(place, experiments, names.remarks)


def _make_suite(place: SuitePlace, experiments: Sequence[Experiment], of_names: Iterable[str]) -> Suite:
    codes = (remark_on_code(experiment.args) for experiment in experiments if experiment.args is not None)
    code_remarks = dict.fromkeys(remark for remark in codes if remark is not None)
    remarks = (
        *dict.fromkeys(of_names),
        *place.datasets.remarks(),
        *place.models.remarks(),
        *code_remarks,
        *place.eval_tasks.remarks,
    )
    return Suite(name=place.name, file=place.file, experiments=tuple(experiments), remarks=remarks)


def _in_file_order(problems: Sequence[Problem]) -> list[Problem]:
    """Return each problem once: file by file as they were met, line by line."""
    unique = list(dict.fromkeys(problems))
    files = list(dict.fromkeys(problem.file for problem in unique))
    return sorted(unique, key=lambda problem: (files.index(problem.file), problem.line or 0))


def _argument_names(place: SuitePlace) -> ArgumentNames:
    """Return the resolver of argument names; `model` may name a folder of this place, or a model of the catalog."""

    def is_catalog_model(value: Located) -> bool:
        if not isinstance(value.value, str) or place.has_model(value):
            return False
        return MODELS.lookup(value.value) is not None

    return ArgumentNames(known=ARGUMENTS, elsewhere=ELSEWHERE, is_catalog_model=is_catalog_model)


@dataclass(slots=True, kw_only=True)
class _Loader:
    """Reads one suite's document and collects its problems."""

    place: SuitePlace
    set_layer: Layer
    problems: list[Problem]
    names: ArgumentNames
    taken: AbstractSet[str] = frozenset()
    """Names of experiments that have results."""
    repositories: dict[str, str] = field(default_factory=dict)
    """Hub and repository -> the experiment that pushes there."""
    export_folders: dict[str, str] = field(default_factory=dict)
    """Folder -> the experiment that exports into it."""
    report: ReportOptions = field(default_factory=ReportOptions)
    """How the suite wants its results to be shown, once it is loaded."""

    def load(self, document: Located) -> list[Experiment]:
        """Return all experiments of the document."""
        before = len(self.problems)
        if document.mapping is None:
            self.problems.append(document.problem(f"got {show(document)}", expected=_A_SUITE))
            return []
        if "experiment" not in document.mapping and (other := describe_other_file(document)) is not None:
            kind, what_to_do = other
            self.problems.append(document.problem(f"{kind}, not a suite", expected=_A_SUITE, hint=what_to_do))
            return []
        suite = self._read_layer(document.mapping, source="suite", besides=("experiment", "report"))
        self.report = read_report(document.mapping.get("report"), self.problems)
        entries = document.mapping.get("experiment")
        if entries is None:
            hint = did_you_mean("experiment", document.mapping)
            self.problems.append(
                document.problem("`experiment` is missing", expected="a list of experiments", hint=hint)
            )
            return []
        if not entries.items:
            got = "an empty list" if entries.items == () else show(entries)
            hint = "experiment: [{name: lora}]"
            self.problems.append(
                entries.problem(f"got {got}", expected="a list of experiments, each with a name", hint=hint)
            )
            return []
        variants = [variant for entry in entries.items for variant in self._variants_of(entry, suite)]
        experiments = self._build(variants, before)
        if len(self.problems) == before:
            self.problems += self.place.effects.finish()
        return experiments

    def _read_layer(self, entries: Mapping[str, Located], *, source: str, besides: Sequence[str]) -> Layer:
        return read_layer(entries, source=source, names=self.names, besides=besides, problems=self.problems)

    def _variants_of(self, entry: Located, suite: Layer) -> Iterator[Variant]:
        """Yield the variants of one entry: the cells of its matrix, or itself."""
        if entry.mapping is None:
            self.problems.append(entry.problem(f"got {show(entry)}", expected="a mapping with a name"))
            return
        name = self._name(entry) or ""
        own = self._read_layer(entry.mapping, source="experiment", besides=("name",))
        for variant_name, layer in self._variants(name, entry, suite, own):
            cmd = read_cmd(layer, at=entry, problems=[])
            takes = layer.section("args").get(CKPT_FROM) if cmd in OWN_ARGUMENTS else None
            yield Variant(
                entry=entry,
                entry_name=name,
                name=variant_name,
                layer=layer,
                takes=takes,
                repeats=self._repeats(layer, cmd, takes=takes is not None),
            )

    def _build(self, variants: Sequence[Variant], before: int) -> list[Experiment]:
        """Return all experiments, each after the one whose model it takes."""
        makers = Makers(variants=variants, problems=self.problems, taken=self.taken)
        seen: dict[str, Located] = {}
        built: list[Experiment] = []
        taken_at: dict[str, Located] = {}
        unlisted: list[tuple[Located, set[str]]] = []
        for variant in variants:
            of_layer: dict[int, Experiment | None] = {}
            members = makers.members(variant)
            if not members:  # what else is wrong with it
                ExperimentBuilder(
                    place=self.place, at=variant.entry, layer=variant.layer, problems=self.problems
                ).build(variant.name)
            for member in members:
                for name in (member.base_experiment or member.name, member.name):
                    self._claim(name, variant.entry, seen)
                layer = member.layer
                if id(layer) not in of_layer:
                    builder = ExperimentBuilder(place=self.place, at=variant.entry, layer=layer, problems=self.problems)
                    of_layer[id(layer)] = builder.build(variant.name)
                if (experiment := of_layer[id(layer)]) is not None:
                    built.append(as_member(experiment, member))
                    self._claim_repository(built[-1], variant.entry)
                    self._claim_export_folder(built[-1], variant.entry)
                    if variant.takes is not None:
                        taken_at[member.name] = variant.takes
            per_dataset = variant.layer.section("eval_args").get(PER_DATASET)
            if per_dataset is not None:
                unlisted += [(per_dataset, set(found.eval_dataset)) for found in of_layer.values() if found is not None]
        if len(self.problems) == before:
            self._check_per_dataset(unlisted)
            self.problems += check_makers(built, taken_at)
        return parents_first(built)

    def _name(self, entry: Located) -> str | None:
        value = (entry.mapping or {}).get("name")
        if value is None or value.value is None:
            self.problems.append((value or entry).problem("no name", expected=f"`name`: {NAME_RULE}"))
            return None
        name = take_text(value, self.problems, expected="a name")
        if name is None:
            return None
        if name_error(name) is not None and name_error(folder := "-".join(name.split("/"))) is None:
            # SWIFT's first experiment files have names such as lora/neftune.
            self.names.remarks.append(f"experiment {name!r} is called {folder}: its name is that of a folder")
            return folder
        if (error := name_error(name)) is not None:
            self.problems.append(value.problem(error, expected=NAME_RULE))
            return None
        return name

    def _claim(self, name: str, entry: Located, seen: dict[str, Located]) -> None:
        """Report a name that an experiment before has already, be it in other letters: file systems differ there."""
        other = seen.setdefault(name.lower(), entry)
        if name and other is not entry:
            taken = (other.mapping or {}).get("name")
            hint = None if taken is not None and taken.value == name else "capitals make no difference"
            message = f"the name {name!r} is taken by the experiment on line {other.line}"
            self.problems.append((entry.mapping or {}).get("name", entry).problem(message, hint=hint))

    def _claim_repository(self, experiment: Experiment, entry: Located) -> None:
        """Report a hub's repository that an experiment before pushes to already: the later push would replace it."""
        args = experiment.args
        if experiment.cmd not in TRAININGS or args is None or not args.push_to_hub:
            return
        repository = repository_of(args)
        other = self.repositories.setdefault(f"{args.hub}:{repository}".lower(), experiment.name)
        if other != experiment.name:
            message = f"{experiment.name!r} would push to {repository!r}, where {other!r} pushes to"
            hint = "give each experiment its own hub_model_id, or push_to_hub: false"
            if experiment.repeat is not None:
                hint = "`repeats` and `push_to_hub` do not go together: push one run under a name of its own"
            self.problems.append(entry.problem(message, hint=hint))

    def _claim_export_folder(self, experiment: Experiment, entry: Located) -> None:
        """Report a folder that an experiment before exports into already: the later one would find it taken."""
        folder = None if experiment.export is None else experiment.export.output_dir
        other = experiment.name if folder is None else self.export_folders.setdefault(folder, experiment.name)
        if other != experiment.name:
            message = f"{experiment.name!r} would export into {folder}, where {other!r} exports into"
            hint = "give each its own output_dir, or none: the model is then in the job's folder"
            self.problems.append(entry.problem(message, hint=hint))

    def _variants(self, name: str, entry: Located, suite: Layer, own: Layer) -> list[tuple[str, Layer]]:
        """Return name and merged layers of each cell of the experiment's matrix, or of itself alone."""
        layers = (suite, own, self.set_layer)
        merged = merge(layers)
        matrix = merged.values.get("matrix")
        if matrix is None or matrix.is_forgotten or not self._applies(matrix, merged, suite):
            return [(name, merged)]
        variants = expand_matrix(matrix, resolve=self._resolve_varied, problems=self.problems)
        keys = {target for variant in variants for target in variant.values}
        self._check_overruled(matrix, keys, own)
        found = []
        repeats = self._repeats(merged, read_cmd(merged, at=entry, problems=[]), takes=False)
        room = len(f"-seed{repeats - 1}") if repeats > 1 else 0
        names = variant_names(name, variants, taken=self.taken, room=room)
        wrong = next((error for each in names if (error := name_error(each)) is not None), None)
        if wrong is not None and name:
            template = (matrix.mapping or {}).get(NAME, matrix)
            self.problems.append(template.problem(f"makes {wrong}", expected=NAME_RULE))
        for variant_name, variant in zip(names, variants, strict=True):
            sections: dict[str, dict[str, Located]] = {}
            for (section, key), value in variant.values.items():
                sections.setdefault(section, {})[key] = value
            found.append((variant_name, merge((suite, own, Layer(sections=sections), self.set_layer))))
        return found or [(name, merged)]

    def _applies(self, matrix: Located, merged: Layer, suite: Layer) -> bool:
        """Return whether the matrix is this experiment's: its own always, the suite's where cmd is the suite's."""
        if matrix.source == "experiment":
            return True
        suite_cmd = merge((suite, self.set_layer)).values.get("cmd")
        cmd = merged.values.get("cmd")
        return cmd is not None and cmd.value == ("sft" if suite_cmd is None else suite_cmd.value)

    def _resolve_varied(self, key: str, value: Located) -> Mapping[Target, Located]:
        """Return what one key and value of a matrix set."""
        head, dot, rest = key.partition(".")
        section, name = (head, rest) if dot else ("args", key)
        if section not in SECTIONS or section == "info":
            dotted = [f"{section}.{key}" for section, keys in SECTION_KEYS.items() for key in keys]
            hint = did_you_mean(key, (*ARGUMENTS, *dotted))
            expected = "an argument, or requirements.KEY, eval_requirements.KEY, eval_args.KEY, env.KEY"
            self.problems.append(value.problem(f"unknown key {key[:80]!r}", expected=expected, hint=hint))
            return {}
        entries = {name: relocate(value, source="matrix")}
        found = read_section(section, entries, names=self.names, problems=self.problems)
        return {(section, own): entry for own, entry in found.items()}

    def _check_overruled(self, matrix: Located, keys: set[Target], own: Layer) -> None:
        """Report keys that vary and are also set by a layer above: all variants would be the same."""
        above = [(self.set_layer, "--set")] if matrix.source != OVERRIDE else []
        if matrix.source == "suite":
            above.append((own, "this experiment"))
        for section, key in sorted(keys):
            for layer, who in above:
                if key in layer.section(section):
                    where = layer.section(section)[key]
                    message = f"the matrix (line {matrix.line}) varies `{key}`, which {who} sets to one value"
                    hint = "give the experiment a `matrix` of its own, or `matrix: null`" if who != "--set" else None
                    self.problems.append(where.problem(message, hint=hint))

    def _repeats(self, layer: Layer, cmd: Command | None, *, takes: bool) -> int:
        """Return how often an experiment runs; baselines and exports have nothing random to repeat."""
        value = layer.values.get("repeats")
        found = None if value is None else take_count(value, self.problems, low=1, high=MAX_REPEATS)
        seed = layer.section("args").get("seed")
        if value is not None and (found or 0) > 1 and seed is not None and seed.source == "matrix":
            self.problems.append(
                value.problem("`repeats` varies `seed`, and so does the matrix", hint="keep one of them")
            )
        if value is not None and takes and (found or 0) > 1 and value.source != "suite":
            message = f"`repeats` with `{CKPT_FROM}`: it runs once for each model that it takes"
            self.problems.append(value.problem(message, hint="repeat the experiment that makes the model"))
        return 1 if takes or cmd in {"eval", "export"} else found or 1

    def _check_per_dataset(self, seen: Sequence[tuple[Located, set[str]]]) -> None:
        """Report `per_dataset` names that no experiment evaluates."""
        evaluated = {name for _, names in seen for name in names}
        for value, _ in seen if evaluated else ():
            for name, entry in (value.mapping or {}).items():
                if name not in evaluated:
                    message = f"no experiment evaluates {name[:80]!r}"
                    hint = did_you_mean(name, evaluated)
                    self.problems.append(entry.problem(message, expected=", ".join(sorted(evaluated)), hint=hint))


def _at(file: str, message: str, *, expected: str | None = None, hint: str | None = None) -> Problem:
    return Problem(file=file, line=None, path="", message=message, expected=expected, hint=hint)
