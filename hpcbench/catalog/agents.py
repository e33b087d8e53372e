"""How dialogues with tools are written as text, and how the loss weighs their parts.

In: `agents.yaml`, with the user's additions. Out: frozen entries and the texts that they make. It reads nothing but the
catalog.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hpcbench.catalog.files import Catalog, CatalogEntry


class AgentFormat(CatalogEntry):
    """One way to write tool calls."""

    source: str
    tools_prompt: str
    """For the system prompt; `{tools}` is one line per tool, `{names}` their names."""
    call: str
    """A tool call; `{name}`, `{arguments}`."""
    observation: str
    """Stands before a tool's result."""
    answer: str
    """Stands before the answer that follows a result."""
    loss_scale: Mapping[str, tuple[float, float]]
    """Keyword -> weight of the keyword, weight of what follows it up to the next."""

    def write_tools(self, tools: Sequence[Mapping[str, Any]]) -> str:
        """Return the system prompt's part about the tools, or nothing without tools."""
        if not tools:
            return ""
        lines = []
        for tool in tools:
            parameters = json.dumps(tool.get("parameters", {}), ensure_ascii=False)
            lines.append(f"{tool.get('name')}: {tool.get('description', '')} Parameters: {parameters}")
        names = ", ".join(str(tool.get("name")) for tool in tools)
        return self.tools_prompt.replace("{names}", names).replace("{tools}", "\n".join(lines))

    def write_call(self, name: str, arguments: object) -> str:
        """Return one tool call."""
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return self.call.replace("{name}", name).replace("{arguments}", text)

    def weigh_characters(self, text: str) -> list[float]:
        """Return the loss weight of each character of an answer; what precedes the first keyword weighs 1."""
        weights = [1.0] * len(text)
        longest_first = sorted(self.loss_scale, key=len, reverse=True)
        found = list(re.finditer("|".join(map(re.escape, longest_first)), text)) if longest_first else []
        for index, match in enumerate(found):
            end = found[index + 1].start() if index + 1 < len(found) else len(text)
            of_keyword, of_content = self.loss_scale[match.group()]
            weights[match.start() : match.end()] = [of_keyword] * len(match.group())
            weights[match.end() : end] = [of_content] * (end - match.end())
        return weights


AGENT_FORMATS: Final = Catalog(name="agents", entry=AgentFormat)
