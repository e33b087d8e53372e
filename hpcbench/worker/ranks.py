"""This process among the ranks of its job, and what all ranks do together.

In: the environment that torchrun makes, and later the process group that transformers' TrainingArguments start. Out:
sums, objects and waits over all ranks, by accelerate; with one rank each is a plain return. Before the group starts,
one rank may announce something to the others through torchrun's store. It starts no process group.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
POLL_S: Final = 0.2
"""Between two looks at what another rank has announced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process's numbers; collectives need the process group, which starts after the data is tokenized."""

    rank: int = 0
    local_rank: int = 0
    count: int = 1

    @classmethod
    def from_environment(cls) -> Ranks:
        """Return this process's numbers as torchrun names them."""
        # accelerate's PartialState has them too, but asking it starts the process group with its backend and timeout.
        numbers = {"rank": "RANK", "local_rank": "LOCAL_RANK", "count": "WORLD_SIZE"}
        return cls(**{name: int(os.environ[variable]) for name, variable in numbers.items() if variable in os.environ})

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the only one that writes files."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other rank, so that this one may leave without making another wait."""
        return self.count == 1

    def sum(self, values: torch.Tensor, device: torch.device | str) -> torch.Tensor:
        """Return the sum over all ranks."""
        if self.is_alone:
            return values
        from accelerate.utils import reduce

        # NCCL reduces tensors on GPUs only.
        return cast("torch.Tensor", reduce(values.to(device), reduction="sum")).to(values.device)

    def gather(self, value: T) -> list[T]:
        """Return every rank's value, in order of ranks."""
        from accelerate.utils import gather_object

        return [value] if self.is_alone else cast("list[T]", gather_object([value]))

    def broadcast(self, value: T) -> T:
        """Return rank 0's value."""
        from accelerate.utils import broadcast_object_list

        return value if self.is_alone else cast("list[T]", broadcast_object_list([value]))[0]

    def announce(self, topic: str, text: str) -> None:
        """Write what the ranks that listen for a topic hear, before there is a process group."""
        if not self.is_alone:
            _open_store().set(topic, text)

    def hear(self, topic: str) -> str:
        """Wait for what another rank announces, however long it takes: no process group is there to time out."""
        store = _open_store()
        # A store's own wait would let no signal through, and torchrun ends ranks by one when another has failed.
        while not store.check([topic]):
            time.sleep(POLL_S)
        return str(store.get(topic), "utf-8")

    def wait_for_all(self) -> None:
        """Wait until every rank is here."""
        if not self.is_alone:
            from accelerate import PartialState

            PartialState().wait_for_everyone()


@cache
def _open_store() -> Any:
    """Return torchrun's store, by which the process group will find its ranks too."""
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://"))
    return store


ALONE: Final = Ranks()
"""One process without others: evals, and trainings of one rank."""
