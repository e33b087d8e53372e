"""The yardstick of `tests.benchmarks.collect`: open each request and record of a save directory once, and parse it.

In: a save directory. Out: a line with the number of files and bytes. The standard library alone, so that it starts fast.
"""

import json
import sys
from pathlib import Path


def main(save_dir: Path) -> None:
    """Read and parse, and keep nothing."""
    num_files = num_bytes = 0
    for name in ("job.json", "record.json"):
        for file in save_dir.glob(f"*/*/*/{name}"):
            text = file.read_text(encoding="utf-8")
            json.loads(text)
            num_files += 1
            num_bytes += len(text)
    print(f"{num_files} files, {num_bytes / 1e6:.0f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
