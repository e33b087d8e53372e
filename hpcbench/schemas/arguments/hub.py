"""Arguments that say whether and where weights are pushed."""

from __future__ import annotations

from typing import Literal

from hpcbench.schemas.arguments.base import Arguments


class HubArgs(Arguments):
    """Whether the weights go to a model hub, to which repository, and which of them."""

    push_to_hub: bool = False
    """Push the finished weights to a model hub once training has ended."""
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    """Which hub to push to; modelscope needs the extra of that name."""
    hub_model_id: str | None = None
    """Repository to push to, `name` or `owner/name`; None is model_type-sft_type of the logged-in user."""
    hub_private_repo: bool = True
    """Whether a repository that is made for the push is private; one that exists stays as it is."""
    push_hub_strategy: Literal["end", "push_best", "push_last", "checkpoint", "all_checkpoints"] = "push_best"
    """Weights to push: the best, the last (push_last, end), the best with the last as last-checkpoint (checkpoint), or
    the best with every checkpoint that was kept (all_checkpoints)."""
