"""Rewards of answers, as TRL measures them, under the names of history and record.

In: figures by TRL's names. Out: the same by hpcbench's. A reward is beta times the log-ratio of the trained model and
its reference (dpo, kto), or beta times the answer's log-probability (orpo, cpo, simpo).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CHOSEN: Final = "rewards_chosen"
REJECTED: Final = "rewards_rejected"
MARGIN: Final = "reward_margin"
_NAMES: Final[Mapping[str, str]] = {
    "rewards/chosen": CHOSEN,
    "rewards/rejected": REJECTED,
    "rewards/margins": MARGIN,
    "rewards/accuracies": "reward_accuracy",
}
REWARDS: Final = tuple(_NAMES.values())
"""By their names in history and record."""


def name_rewards(figures: Mapping[str, float], *, prefix: str = "") -> dict[str, float]:
    """Return the rewards among TRL's figures, by their names in the history."""
    return {f"{prefix}{name}": figures[known] for known, name in _NAMES.items() if known in figures}
