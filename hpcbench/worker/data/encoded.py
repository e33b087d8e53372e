"""One sample as tokens: what a model reads, and which of it it learns to predict (values only)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from hpcbench.data.images import ImageSource

IGNORED_LABEL: Final = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One sample; a sample that `delete` drops for its length has no tokens and counts as truncated."""

    input_ids: Sequence[int]
    labels: Sequence[int]
    """The token itself where loss is taken, else -100; the model shifts them."""
    weights: Sequence[float] | None = None
    """Loss weight of each label, 0 where there is none; None weighs all labels 1."""
    truncated: bool = False
    images: tuple[ImageSource, ...] = ()
    """Pictures whose tokens are among the ids, in their order."""
    rejected: Encoded | None = None
    """The worse answer to the same prompt, with it; only of pairs."""
    is_good: bool | None = None
    """Whether the answer is a good one; only of judged answers."""

    def part(self, start: int, end: int) -> Encoded:
        """Return the tokens from `start` to before `end`."""
        weights = None if self.weights is None else self.weights[start:end]
        return replace(self, input_ids=self.input_ids[start:end], labels=self.labels[start:end], weights=weights)

    @property
    def num_tokens(self) -> int:
        """Tokens that go into the model, those of the rejected answer too."""
        return len(self.input_ids) + (0 if self.rejected is None else len(self.rejected.input_ids))

    @property
    def num_label_tokens(self) -> int:
        """Tokens that are predicted; the first position never is."""
        return sum(label != IGNORED_LABEL for label in self.labels[1:])
