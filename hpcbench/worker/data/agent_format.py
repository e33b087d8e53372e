"""How a training writes tool calls and weighs the parts of answers: the catalog's entry that its arguments name."""

from __future__ import annotations

from hpcbench.catalog.agents import AGENT_FORMATS, AgentFormat
from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs


def find_agent_format(args: SftArgs) -> AgentFormat:
    """Return how the arguments want tool calls written.

    Raises:
        WorkerError: the catalog has no such entry.
    """
    found = AGENT_FORMATS.lookup(args.agent_template)
    if found is None:
        known = ", ".join(AGENT_FORMATS.names())
        raise WorkerError(f"agent_template: no entry {args.agent_template!r} in the catalog; known: {known}")
    return found
