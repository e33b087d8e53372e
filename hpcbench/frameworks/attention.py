"""Which attention the arguments ask a framework for."""

from __future__ import annotations

from hpcbench.schemas.arguments import SftArgs


def attention_of(args: SftArgs) -> str | None:
    """Return the attention by transformers' name, None where the framework is free to choose.

    `use_flash_attn: true` takes what there is in hpcbench's own trainings; a framework that is asked for flash
    attention fails without it, so it is asked for only where it is named.
    """
    if args.attn_impl is not None:
        return args.attn_impl
    return "sdpa" if args.use_flash_attn is False else None
