"""The word list: phrases that read translated, and what to write instead. `make check` runs it.

Out: a line per place, exit code 1 if there is one. A line that needs a phrase on purpose ends with `# words: ok`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FILES: Final = ("hpcbench/*.py", "hpcbench/*.yaml", "tests/*.py", "configs/*.yaml", "*.md", "templates", "Makefile")
ALLOWED: Final = "# words: ok"
PHRASES: Final = {
    r"\bmend(s|ed|ing)?\b": "fix, correct, resolve",
    r"\bof (one's|the) own\b": "its own ..., a separate ...",
    r"\bhere and now\b": "on this machine, without a queue",
    r"\bgo(es)? by\b": "uses, follows, is called",
    r"\bfor good\b": "permanently",
    r"\bin vain\b": "without result",
    r"\bsurely\b": "certainly, or nothing",
    r"\bthe original('s)?\b(?! (dtype|weights|file|error|exception|signal|module|layer|model|bytes|text|order|line|value))": "ms-swift, SWIFT 2.x",
    r"\b(the )?seed documents?\b|\bthe (\w+ )?seed's\b|\bthe documents' own\b|\bseed names?\b": "ms-swift's",
    r"(?<![Tt]here )\b(is|are|was|were) no(?! (longer|more|less|better|worse|different|one)\b) [a-z]+": "is not a ..., there is no ...",
    r"^\s*(r|f)?\"\"\"(Say|Tell|Look|Know|Hear)\b": "a verb for what is done: Return, Check, Read, Ask the scheduler",
    r"\b(nobody|no one) (looked|knows|asked)\b": "not checked, unknown",
    r"\bsays? of itself\b": "reports",
}  # fmt: skip


def main() -> int:
    """Print every place where a phrase occurs."""
    listed = subprocess.run(["git", "ls-files", "--", *FILES], cwd=ROOT, capture_output=True, text=True, check=True)
    found = 0
    for name in listed.stdout.splitlines():
        if name == "tests/support/word_list.py" or not (ROOT / name).is_file():
            continue
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
            for phrase, instead in PHRASES.items():
                if ALLOWED not in line and (hit := re.search(phrase, line, re.IGNORECASE)):
                    print(f"{name}:{number}: {hit.group().strip()!r}: write {instead}")
                    found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
