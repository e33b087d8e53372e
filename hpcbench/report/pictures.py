"""The main pictures of a report as PNG and SVG, drawn with matplotlib: scores, trade-offs, losses.

In: a Collection and where histories come from. Out: bytes, the same for the same input. Each picture says
what it leaves out. It writes no file and starts no browser.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from hpcbench.errors import HpcbenchError, plural
from hpcbench.report.artifacts import Artifacts
from hpcbench.report.column import Column
from hpcbench.report.columns import MEMORY, TRAIN_SPEED
from hpcbench.report.cost import GPU_HOURS
from hpcbench.report.curves import MeanPoint, bucket_size, mean_curve
from hpcbench.report.escape import one_line
from hpcbench.report.facts import Facts, facts_of
from hpcbench.report.label_places import Box, place_labels
from hpcbench.report.layouts import table_columns
from hpcbench.report.pareto import pareto_front
from hpcbench.report.ranking import main_column, ranked
from hpcbench.report.rows import Row, average, merge_repeats
from hpcbench.schemas.collection import Collection, JobView, SuiteView
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.schemas.request import TRAININGS
from hpcbench.storage.paths import folder_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 30
MOST_CURVES = 10
MOST_NAMED = 20
_NAME_LIMIT = 40
_DPI = 150
_POINT_RADIUS_PX = 8.0
_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that pictures are the same everywhere
    "font.size": 9,
    "text.parse_math": False,  # names may hold dollar signs
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6eb",
    "svg.hashsalt": "hpcbench",
    "svg.fonttype": "path",
}
_BLUE, _GREEN, _GRAY = "#2563eb", "#0f7b3f", "#667085"
_COLORS = (
    *("#2563eb", "#d97706", "#0f7b3f", "#b42318", "#7c3aed"),
    *("#0891b2", "#be185d", "#65a30d", "#57534e", "#1e3a8a"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture in both forms."""

    suite: str
    name: str
    """Of its files, without the ending."""
    title: str
    png: bytes
    svg: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Suite:
    name: str
    rows: tuple[Row, ...]
    """The best ranked first."""
    columns: tuple[Column, ...]
    main: Column | None


def draw_pictures(collection: Collection, options: ReportOptions, artifacts: Artifacts) -> tuple[Picture, ...]:
    """Return the pictures of all suites; a picture that would show fewer than two things is left out.

    Raises:
        HpcbenchError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise HpcbenchError(
            "pictures need matplotlib, which is not installed", hint="pip install 'hpcbench-llm[analysis]'"
        ) from error
    with mpl.rc_context(_SETTINGS):
        return tuple(picture for suite in collection.suites for picture in _pictures_of(suite, options, artifacts))


def _pictures_of(view: SuiteView, options: ReportOptions, artifacts: Artifacts) -> Iterator[Picture]:
    rows = merge_repeats(facts_of(experiment) for experiment in view.experiments)
    columns = table_columns(rows)
    main = main_column(rows, columns, options.over(view.report).best)
    suite = _Suite(name=view.name, rows=ranked(rows, main), columns=columns, main=main)
    drawn = (
        ("scores", _draw_scores(suite)),
        ("speed-memory", _draw_scatter(suite, MEMORY, TRAIN_SPEED)),
        ("trade-off", _draw_trade_off(suite)),
        ("loss", _draw_losses(suite, artifacts)),
    )
    for name, found in drawn:
        if found is not None:
            title, figure = found
            yield Picture(
                suite=view.name,
                name=f"{folder_name(view.name)}-{name}",
                title=title,
                png=_bytes(figure, "png"),
                svg=_bytes(figure, "svg"),
            )


def _draw_scores(suite: _Suite) -> tuple[str, Figure] | None:
    """Draw the main figure of each row with its error, the best at the top."""
    if suite.main is None:
        return None
    values = [(row, found.value) for row in suite.rows if (found := average(suite.main, row)) is not None]
    shown = values[:MOST_BARS]
    if len(shown) < 2:  # noqa: PLR2004
        return None
    title = f"{suite.name}: {_label(suite.main)}"
    figure, axes = _figure(title, height=0.9 + 0.26 * len(shown), note=_left_out(len(shown), len(values), "the best"))
    for place, (row, value) in enumerate(shown):
        color = _BLUE if row.completed else _GRAY
        axes.errorbar(value, place, xerr=_error(suite.main, row), fmt="o", color=color, capsize=3, markersize=5)
    axes.set_yticks(range(len(shown)), [_row_label(row) for row, _ in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel(_axis_label(suite.main))
    return title, figure


def _draw_trade_off(suite: _Suite) -> tuple[str, Figure] | None:
    # Tables mark no row for its cost, since one that failed early costs least; here only complete rows compete.
    return None if suite.main is None else _draw_scatter(suite, replace(GPU_HOURS, better="lower"), suite.main)


def _draw_scatter(suite: _Suite, across: Column, up: Column) -> tuple[str, Figure] | None:
    points = [
        (right.value, height.value, row)
        for row in suite.rows
        if (right := average(across, row)) is not None and (height := average(up, row)) is not None
    ]
    # Figures that are the same everywhere, as GPU hours without GPUs, are nothing to trade.
    if len({x for x, _, _ in points}) < 2 or across.key == up.key:  # noqa: PLR2004
        return None
    title = f"{suite.name}: {_label(up)} against {_label(across)}"
    complete = [number for number, (_, _, row) in enumerate(points) if row.completed]
    front = [complete[place] for place in pareto_front([points[n][:2] for n in complete], across.better, up.better)]
    order = [*front, *(number for number in range(len(points)) if number not in set(front))]
    figure, axes = _figure(title, height=4.6)
    axes.margins(0.12)
    for number, (x, y, row) in enumerate(points):
        color = _GREEN if number in set(front) else _BLUE if row.completed else _GRAY
        axes.plot(x, y, "o", color=color, markersize=6, alpha=0.85, zorder=4 if number in set(front) else 3)
    if len(front) > 1:
        line = [points[number][:2] for number in front]
        axes.plot(*zip(*line, strict=True), color=_GREEN, linewidth=1.2, label="Pareto front")
    axes.set_xlabel(_axis_label(across))
    axes.set_ylabel(_axis_label(up))
    _write_note(figure, " ")  # keeps its place while names are placed
    named = _name_points(figure, axes, [points[number] for number in order], most=MOST_NAMED)
    note = _left_out(len(points), len(suite.rows), "rows with both figures")
    unnamed = f"{plural(len(points) - named, 'point')} without a name" if named < len(points) else ""
    front_text = "green: no complete row is better in both" if front else ""
    _write_note(figure, "; ".join(text for text in (front_text, note, unnamed) if text))
    return title, figure


def _name_points(figure: Figure, axes: Axes, points: Sequence[tuple[float, float, Row]], *, most: int) -> int:
    """Write the first names, where there is room, and return how many."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    pixels = [tuple(axes.transData.transform((x, y))) for x, y, _ in points]
    texts = [
        axes.text(0, 0, _row_label(row), fontsize=7.5, color="#1f2430", in_layout=False) for _, _, row in points[:most]
    ]
    sizes = [(box.width, box.height) for box in (text.get_window_extent(renderer) for text in texts)]
    frame = axes.get_window_extent(renderer)
    places = place_labels(pixels, sizes, Box(frame.x0, frame.y0, frame.x1, frame.y1), radius=_POINT_RADIUS_PX)
    for text, place, (x, _) in zip(texts, places, pixels, strict=False):
        if place is None:
            text.remove()
        else:
            # Widths of letters differ a little between the two forms, so that names are held at the side of the point.
            side, left = _side(place, x)
            text.set(position=axes.transData.inverted().transform((left, place.bottom)), ha=side, va="bottom")
    return sum(place is not None for place in places)


def _side(place: Box, x: float) -> tuple[Literal["left", "right", "center"], float]:
    """Return at which side the text of a place is held, and the x of it."""
    if place.left >= x:
        return "left", place.left
    return ("right", place.right) if place.right <= x else ("center", (place.left + place.right) / 2)


def _draw_losses(suite: _Suite, artifacts: Artifacts) -> tuple[str, Figure] | None:
    """Draw training losses as lines and losses on the validation split as points on them, repeats as their mean."""
    trained = [row for row in suite.rows if any(_training(facts) is not None for facts in row.members)]
    figure, axes = _figure(f"{suite.name}: loss over optimizer steps", height=4.2)
    drawn, covered = 0, 1
    for row in trained:
        if drawn == MOST_CURVES:
            break
        histories = [artifacts.history(main) for facts in row.members if (main := _training(facts)) is not None]
        series = [points for history in histories if len(points := history.series("loss")) > 1]
        if not series:
            continue
        color = _COLORS[drawn % len(_COLORS)]
        _draw_curve(axes, mean_curve(series), color, "-", label=_row_label(row))
        evals = [points for history in histories if (points := history.series("eval_loss"))]
        if evals:
            _draw_curve(axes, mean_curve(evals), color, "o--")
        covered = max(covered, *(bucket_size(len(points)) for points in series))
        drawn += 1
    if not drawn:
        return None
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (line: training, dots: validation)")
    if all(low > 0 for low in axes.get_ylim()):
        axes.set_yscale("log")
        for formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            formatter(lambda value, _: f"{value:g}")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=7.5)
    means = f"each point of a line is the mean of up to {covered} steps" if covered > 1 else ""
    left_out = _left_out(drawn, len(trained), "the best")
    _write_note(figure, "; ".join(text for text in (means, left_out) if text))
    return f"{suite.name}: loss over optimizer steps", figure


def _draw_curve(axes: Axes, points: Sequence[MeanPoint], color: str, line: str, *, label: str | None = None) -> None:
    """Draw one line, with a band of one standard deviation where it is the mean of repeats."""
    steps = [point.step for point in points]
    axes.plot(steps, [point.mean for point in points], line, color=color, linewidth=1.1, markersize=3, label=label)
    if any(point.std for point in points):
        low, high = ([point.mean + sign * point.std for point in points] for sign in (-1, 1))
        axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)


def _training(facts: Facts) -> JobView | None:
    return facts.view.main if facts.view.cmd in TRAININGS else None


def _figure(title: str, *, height: float, note: str = "") -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, height), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(one_line(title, limit=90), loc="left", fontsize=10, fontweight="bold")
    _write_note(figure, note)
    return figure, axes


def _write_note(figure: Figure, note: str) -> None:
    if note:
        figure.supxlabel(note, x=0.01, ha="left", fontsize=7.5, color=_GRAY)


def _bytes(figure: Figure, format_: str) -> bytes:
    stream = io.BytesIO()
    # Without dates and versions, so that unchanged results give unchanged files.
    metadata = {"Software": None} if format_ == "png" else {"Date": None, "Creator": None}
    figure.savefig(stream, format=format_, metadata=metadata)
    return stream.getvalue()


def _left_out(shown: int, number: int, which: str) -> str:
    return f"{which} {shown} of {number}" if shown < number else ""


def _error(column: Column, row: Row) -> float | None:
    found = average(column, row)
    if found is not None and found.std is not None:
        return found.std
    scores: Callable[[Facts], float | None] = _stderr_reader(column)
    return scores(row.first)


def _stderr_reader(column: Column) -> Callable[[Facts], float | None]:
    def read(facts: Facts) -> float | None:
        for dataset, found in facts.evals.items():
            score = found.score
            if score is not None and column.key == f"{dataset}_{score.metric}" and score.stderr is not None:
                return score.stderr * column.scale
        return None

    return read


def _row_label(row: Row) -> str:
    repeats = f" (n={len(row.members)})" if len(row.members) > 1 else ""
    state = "" if row.completed else " (incomplete)"
    return one_line(row.name, limit=_NAME_LIMIT) + repeats + state


def _label(column: Column) -> str:
    return " ".join((column.short or column.header or column.key).split())


def _axis_label(column: Column) -> str:
    better = {"higher": " (higher is better)", "lower": " (lower is better)"}
    return _label(column) + ("" if column.better is None else better[column.better])
