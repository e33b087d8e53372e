"""The environments in which jobs look for models and data: prefetch and doctor use the same caches (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.request import JobRequest

_PREFIXES = ("HF_", "HUGGINGFACE_", "MODELSCOPE_", "TRANSFORMERS_")
_NAMES = frozenset({"USE_MODELSCOPE_HUB", "XDG_CACHE_HOME"})


def group_by_environment(
    requests: Iterable[JobRequest], profile: ClusterProfile | None, environ: Mapping[str, str]
) -> Iterator[tuple[dict[str, str], list[JobRequest]]]:
    """Yield the environment of each set of requests that choose hubs and caches alike, with these requests.

    A job's variables are the submitting shell's, then the profile's, then the experiment's `env`.
    """
    groups: dict[tuple[tuple[str, str], ...], list[JobRequest]] = {}
    for request in requests:
        chosen = {name: value for name, value in request.env.items() if name in _NAMES or name.startswith(_PREFIXES)}
        groups.setdefault(tuple(sorted(chosen.items())), []).append(request)
    base = {**environ, **({} if profile is None else profile.env)}
    yield from (({**base, **dict(chosen)}, group) for chosen, group in groups.items())
