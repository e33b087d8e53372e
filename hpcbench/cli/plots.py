"""The files of `collect --plots`: pictures of a collection, as PNG and SVG.

In: a collection and a folder. Out: files in it, and how a report links to them. What is drawn is the report's business.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpcbench.errors import PlanError, plural
from hpcbench.report.artifacts import PictureLink, ReportContext
from hpcbench.schemas.collection import Collection
from hpcbench.schemas.report_options import ReportOptions

if TYPE_CHECKING:
    from hpcbench.report.pictures import Picture


def draw_plots(
    collection: Collection, options: ReportOptions, context: ReportContext, folder: Path
) -> tuple[PictureLink, ...]:
    """Write the pictures of all suites into a folder, say so, and return them as seen from the report.

    Raises:
        PlanError: the folder cannot be made or written to.
        HpcbenchError: matplotlib is not installed.
    """
    from hpcbench.report.pictures import draw_pictures

    pictures = draw_pictures(collection, options, context.artifacts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            (folder / f"{picture.name}.png").write_bytes(picture.png)
            (folder / f"{picture.name}.svg").write_bytes(picture.svg)
    except OSError as error:
        raise PlanError(f"--plots {folder}: {error.strerror}", hint="name a folder that you may write to") from error
    # Standard output may be the report.
    print(_told(pictures, folder), file=sys.stderr)
    start = Path(os.path.relpath(folder.absolute(), context.folder or Path.cwd()))
    return tuple(
        PictureLink(suite=picture.suite, title=picture.title, path=(start / f"{picture.name}.png").as_posix())
        for picture in pictures
    )


def _told(pictures: Sequence[Picture], folder: Path) -> str:
    if not pictures:
        return f"no pictures in {folder}: nothing has two figures or a curve to draw yet"
    return f"wrote {plural(len(pictures), 'picture')} as PNG and SVG into {folder}"
