"""What plan says of a suite's datasets: each local one is looked at once, by the code that jobs read it with.

In: arguments, and where their datasets were written. Out: problems at those places, and remarks on what is not read or
could not be checked. Datasets of hubs are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from hpcbench.catalog.agents import AGENT_FORMATS
from hpcbench.config.model_checks import ModelReader
from hpcbench.data.good_rows import read_good_rows
from hpcbench.data.images import ImageCheck
from hpcbench.data.look import Look
from hpcbench.data.messages import NO_TOOLS_HINT
from hpcbench.data.row_reader import RowReader, lesson_of
from hpcbench.data.sources import find_dataset
from hpcbench.errors import DataError, MissingLibraryError, Problem, WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.located_yaml import Located

IMAGES_OPENED: Final = 2000
"""Images of a dataset that are looked at: on a network file system some seconds."""
IMAGES_DECODED: Final = 100
"""Those of them whose pixels are read too, about a second."""
DATASET_ARGUMENTS: Final = ("dataset", "val_dataset", "train_dataset_mix_ds")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """What one look at a dataset says."""

    fault: WorkerError | None = None
    remarks: tuple[str, ...] = ()
    tools: frozenset[str] = frozenset()
    """What of the rows the chat template must write: `tools`, `tool_calls`."""
    has_chats: bool = True
    """False where all rows are plain text."""
    num_rows: int | None = None
    """Those that are drawn, or all; None where not all of them were read."""


@dataclass(slots=True, kw_only=True)
class DatasetChecker:
    """Looks at the datasets of a suite, each once per way of reading it."""

    models: ModelReader = field(default_factory=ModelReader)
    """Says whether a model reads images, without which rows with images are refused."""
    found: dict[tuple[object, ...], _Finding] = field(default_factory=dict)

    def check(self, args: SftArgs, given: Mapping[str, Located], *, at: Located, asks: bool = False) -> list[Problem]:
        """Return what is wrong with the datasets that the arguments name.

        Args:
            args: of an experiment.
            given: its arguments as they were written.
            at: the experiment.
            asks: whether rows are only asked, so that they may lack their answers.
        """
        problems = []
        for argument in _read_by(args, asks=asks):
            for index, name in enumerate(getattr(args, argument)):
                fault = self._look_once(name, args, asks=asks).fault
                if fault is not None:
                    place = given.get(argument, at).at([index])
                    message, expected = fault.message, None
                    if isinstance(fault, DataError):
                        message, expected = fault.fault, fault.expected
                    problems.append(place.problem(message, expected=expected, hint=fault.hint))
        return problems

    def check_tools(
        self, args: SftArgs, given: Mapping[str, Located], *, at: Located, template: str | None, asks: bool = False
    ) -> list[Problem]:
        """Return a problem for each dataset with tools that the chat template does not write.

        Args:
            args: of an experiment.
            given: its arguments as they were written.
            at: the experiment.
            template: the chat template's text, or that of all that the tokenizer has; None is not known here.
            asks: whether rows are only asked.
        """
        problems: list[Problem] = []
        if template is None:
            return problems
        for argument in _read_by(args, asks=asks):
            for index, name in enumerate(getattr(args, argument)):
                # A template that does not name a variable cannot write what is in it.
                missing = sorted(word for word in self._look_once(name, args, asks=asks).tools if word not in template)
                if missing:
                    what = " and ".join(missing).replace("_", " ")
                    fault = f"its rows have {what}, and the model's chat template does not write them"
                    problems.append(given.get(argument, at).at([index]).problem(fault, hint=NO_TOOLS_HINT))
        return problems

    def has_chats(self, args: SftArgs) -> bool:
        """Return whether a dataset of the arguments has chats, or may have some."""
        names = [name for argument in _read_by(args) for name in getattr(args, argument)]
        return any(self._look_once(name, args).has_chats for name in names)

    def count_training_rows(self, args: SftArgs) -> int | None:
        """Return how many rows are left to train or calibrate on at most, None where that is not known here."""
        ratio = 0.0 if args.val_dataset else args.dataset_test_ratio
        counts = [self._look_once(name, args).num_rows for name in args.dataset]
        known = [count for count in counts if count is not None]
        if len(known) < len(counts):
            return None
        left = sum(count - (min(max(1, int(count * ratio)), count - 1) if ratio > 0 else 0) for count in known)
        return left if args.train_dataset_sample < 0 else min(left, args.train_dataset_sample)

    def remarks(self) -> tuple[str, ...]:
        """Return what is to be said of the datasets beside problems, in the order met."""
        return tuple(dict.fromkeys(remark for finding in self.found.values() for remark in finding.remarks))

    def _look_once(self, name: str, args: SftArgs, *, asks: bool = False) -> _Finding:
        ways = (args.dataset_info, args.agent_template, args.check_dataset_strategy, args.loss_on_all_rounds)
        reads_images = self.models.reads_images(args)
        key = (name, *ways, lesson_of(args), *args.columns.items(), args.system is not None, asks, reads_images)
        if key not in self.found:
            # Of a model that is not here the job says what it does with images.
            self.found[key] = _look_at(name, args, asks=asks, takes_images=reads_images is not False and not asks)
        return self.found[key]


_ON_A_HUB = "on a hub; jobs read it from the cache that `hpcbench prefetch` fills"


def _read_by(args: SftArgs, *, asks: bool = False) -> tuple[str, ...]:
    """Return the arguments whose datasets a job reads."""
    if asks:
        return ("val_dataset",) if args.val_dataset else ("dataset",)
    return DATASET_ARGUMENTS if args.train_dataset_mix_ratio > 0 else DATASET_ARGUMENTS[:2]


def _look_at(name: str, args: SftArgs, *, asks: bool, takes_images: bool) -> _Finding:
    agent = AGENT_FORMATS.lookup(args.agent_template)
    try:
        source = find_dataset(name, registry=args.dataset_info)
        if source.path is None:
            return _Finding(remarks=(f"not checked: {name}: {_ON_A_HUB}",))
        if agent is None:
            return _Finding()
        reader = RowReader(
            agent=agent,
            layout=source.layout,
            lesson=lesson_of(args),
            all_rounds=args.loss_on_all_rounds,
            has_system=args.system is not None,
            renames=args.columns,
            needs_answer=not asks,
            images=ImageCheck(num_opened=IMAGES_OPENED, num_decoded=IMAGES_DECODED) if takes_images else None,
        )
        look = Look(source.path, split=source.splits[0])
        rows = read_good_rows(look, reader, args.check_dataset_strategy, name=name, are_all=lambda: look.is_whole)
        tools: set[str] = set()
        are_chats: set[bool] = set()
        num_rows = 0
        for chat, _ in rows:
            num_rows += 1
            tools.update(chat.for_template())
            are_chats.add(chat.text is None)
    except MissingLibraryError as error:
        return _Finding(remarks=(f"not checked: {error.fault}",))
    except WorkerError as error:
        return _Finding(fault=error)
    return _Finding(
        remarks=tuple(f"{name}: {remark}" for remark in reader.remarks()),
        tools=frozenset(tools),
        has_chats=are_chats != {False},
        num_rows=source.num_samples or (num_rows if look.is_whole else None),
    )
