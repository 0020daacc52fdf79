"""Three figures of a comparison: intervals, accuracy along a varied setting, and cost against accuracy.

Each is an SVG and the caption under it. Colours are never alone: lines have markers, points are filled or hollow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from seqrec.experiments.compare import svg
from seqrec.experiments.compare.notation import duration, interval, measure, number, short
from seqrec.experiments.compare.standing import Axis, Line, Part, marked, ranked, reference
from seqrec.experiments.compare.table import Comparison, Row

#: Height of one line of text with room around it.
STEP = 26.0
#: Below the plot: ticks and the axis' name.
FOOT = 46.0
#: Room that names beside a plot take at most.
LABELS = 330.0
#: Keeps words readable over lines.
HALO = 'paint-order="stroke" stroke="#ffffff" stroke-width="3" stroke-linejoin="round"'


@dataclass(frozen=True)
class Figure:
    """A drawing and what stands under it."""

    svg: str
    caption: str


def intervals(comparison: Comparison, part: Part, name: str) -> Figure | None:
    """A dot per row with its 95% interval, the highest at the top; None where nothing was measured."""
    rows = [row for row in ranked(comparison, part) if comparison.metric in row.test]
    if not rows:
        return None
    title = f"{measure(comparison.metric)} with 95% intervals"
    strong, whom = marked(comparison, part), reference(comparison, part)
    bold = [row.name in strong.names for row in rows]
    left = min(max(svg.text_width(row.name, bold=on) for row, on in zip(rows, bold, strict=True)) + 24, LABELS)
    top, bottom = 12.0, 12 + STEP * len(rows)
    spans = [end for row in rows for end in (row.low, row.high, row.test[comparison.metric].mean)]
    scale = svg.Scale(*svg.padded(spans), left, svg.WIDTH - 64)
    parts = [*across(scale, top, bottom), axis_name((left + svg.WIDTH - 64) / 2, bottom, measure(comparison.metric))]
    parts += _guide(scale, comparison.metric, whom, top, bottom)
    for place, (row, filled) in enumerate(zip(rows, bold, strict=True)):
        y, mean = 12 + STEP * (place + 0.5), row.test[comparison.metric].mean
        colour = svg.COLOURS[0] if filled else svg.MUTED
        parts.append(
            svg.group(
                f"{row.name}: {number(mean)}, 95% interval {interval(row.low, row.high)}",
                svg.text(
                    left - 14, y + 4.5, svg.clipped(row.name, left - 20, bold=filled), "end", more=_weight(filled)
                ),
                svg.line(scale(row.low), y, scale(row.high), y, colour, 3, 'stroke-linecap="round" opacity=".45"'),
                svg.marker("circle", scale(mean), y, colour, filled),
                svg.text(svg.WIDTH - 4, y + 4.5, number(mean), "end", more=_weight(filled)),
            )
        )
    best = rows[0]
    about = f"{len(rows)} rows; the highest is {best.name} with {number(best.test[comparison.metric].mean)}."
    caption = (
        "Each interval is of one row alone. Tests are paired by person and see finer differences than overlap does."
    )
    dashed = f"Dashed: the reference, {whom.name}." if whom else ""
    caption = " ".join(filter(None, (strong.why and f"Filled: {strong.why}.", dashed, caption)))
    return Figure(svg.figure(name, title, about, bottom + FOOT, parts), caption)


def _guide(scale: svg.Scale, metric: str, whom: Row | None, top: float, bottom: float) -> list[str]:
    """A dashed line where the reference is."""
    if whom is None or metric not in whom.test:
        return []
    x = scale(whom.test[metric].mean)
    return [svg.line(x, top, x, bottom, svg.MUTED, 1.2, 'stroke-dasharray="3 4"')]


def along(comparison: Comparison, axis: Axis, name: str) -> Figure | None:
    """The metric against a varied setting: a line per model, an interval at each value."""
    metric = comparison.metric
    lines = [line for line in axis.lines if all(metric in row.test for row in line.rows.values())]
    if not lines:
        return None
    height = max(330.0, 19.0 * len(lines) + FOOT + 30)
    top, bottom, left = 14.0, height - FOOT, 58.0
    right = svg.WIDTH - min(max(svg.text_width(line.name) for line in lines) + 26, 240)
    spans = [end for line in lines for row in line.rows.values() for end in (row.low, row.high, row.test[metric].mean)]
    scale = svg.Scale(*svg.padded(spans), bottom, top)
    room = (right - left) / len(axis.values)
    places = {value: left + room * (place + 0.5) for place, value in enumerate(axis.values)}
    parts = [*_up(scale, left, right), svg.line(left, bottom, right, bottom, svg.MUTED)]
    parts += [svg.text(x, bottom + 19, svg.clipped(value, room), "middle", svg.MUTED) for value, x in places.items()]
    parts += [axis_name((left + right) / 2, bottom, short(axis.key)), _side_name(measure(metric), (top + bottom) / 2)]
    dodge = min(room * 0.5, 9.0 * len(lines)) / max(len(lines), 1)
    looks = _looks(comparison, lines)
    for place, line in enumerate(lines):
        shift = (place - (len(lines) - 1) / 2) * dodge
        parts += _one_line(metric, line, looks[place], {value: x + shift for value, x in places.items()}, scale)
    ends = [scale(list(line.rows.values())[-1].test[metric].mean) for line in lines]
    parts += _names(lines, looks, ends, right, (top, bottom))
    about = " ".join(f"{line.name}: {_told(metric, line)}." for line in lines)
    title = f"{measure(metric)} by {short(axis.key)}"
    caption = (
        f"{title}, with 95% intervals of each point alone. Points are set side by side so that they can be told apart."
    )
    return Figure(svg.figure(name, title, about, height, parts), caption)


def costs(comparison: Comparison, part: Part, name: str) -> Figure | None:
    """Seconds per run against the metric; None where nothing was trained."""
    metric = comparison.metric
    rows = [row for row in ranked(comparison, part) if row.seconds and row.seconds > 0 and metric in row.test]
    if not rows:
        return None
    top, bottom, left, right = 14.0, 360.0, 58.0, svg.WIDTH - 20
    # The dearest points keep room for their names.
    x_scale = svg.Scale(*svg.padded_log([row.seconds or 1.0 for row in rows]), left, right - 80, log=True)
    y_scale = svg.Scale(*svg.padded([end for row in rows for end in (row.low, row.high)], 0.1), bottom, top)
    parts = [*_up(y_scale, left, right), *across(x_scale, top, bottom, _plain)]
    parts += [axis_name((left + right) / 2, bottom, "seconds per run (logarithmic)")]
    parts += [_side_name(measure(metric), (top + bottom) / 2)]
    points = [(x_scale(row.seconds or 1.0), y_scale(row.test[metric].mean)) for row in rows]
    parts += _points(rows, points, metric, y_scale, marked(comparison, part).names, _labels(comparison, part))
    missing = len(comparison.of(part)) - len(rows)
    caption = "Further up is more accurate, further left is cheaper; evaluation is part of the time. Filled as above."
    caption += f" {missing} without a training time: not drawn." if missing else ""
    if any(row.beside > 1 for row in rows):
        caption += " Some runs shared the machine: their times are no benchmark."
    about = " ".join(f"{row.name}: {number(row.test[metric].mean)} in {duration(row.seconds)}." for row in rows)
    title = f"Time per run against {measure(metric)}"
    return Figure(svg.figure(name, title, about, bottom + FOOT, parts), caption)


def _points(
    rows: list[Row],
    points: list[tuple[float, float]],
    metric: str,
    scale: svg.Scale,
    strong: frozenset[str],
    labels: list[str],
) -> list[str]:
    """Points with names; those of one model are joined, and one of them carries its name."""
    parts = []
    for label in dict.fromkeys(row.label for row in rows):
        joined = sorted(point for row, point in zip(rows, points, strict=True) if row.label == label)
        parts.append(svg.polyline(joined, _look(labels.index(label))[0], 1.5, 'opacity=".35"'))
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in points]
    named: set[str] = set()
    for row, (x, y) in zip(rows, points, strict=True):
        colour, shape = _look(labels.index(row.label))
        values = list(map(str, row.varied.values()))
        words = _beside(x, y, ", ".join(values if row.label in named else [row.label, *values]), taken)
        named |= {row.label} if words else set()
        parts.append(
            svg.group(
                f"{row.name}: {number(row.test[metric].mean)} in {duration(row.seconds)}",
                svg.line(x, scale(row.low), x, scale(row.high), colour, 1.5, 'opacity=".4"'),
                svg.marker(shape, x, y, colour, row.name in strong),
                words,
            )
        )
    return parts


def _look(place: int) -> tuple[str, str]:
    return svg.COLOURS[place % len(svg.COLOURS)], svg.MARKERS[place % len(svg.MARKERS)]


def _labels(comparison: Comparison, part: Part) -> list[str]:
    """Models in the order that gives them their colours, the same in all figures of one part."""
    return list(dict.fromkeys(row.label for row in ranked(comparison, part)))


def _looks(comparison: Comparison, lines: list[Line]) -> list[int]:
    """Numbers of colours: those of the models, unless two lines are of the same."""
    firsts = [next(iter(line.rows.values())) for line in lines]
    labels = _labels(comparison, (firsts[0].data, firsts[0].split))
    looks = [labels.index(row.label) for row in firsts]
    return looks if len(set(looks)) == len(lines) else list(range(len(lines)))


def _weight(strong: bool) -> str:
    return 'font-weight="600"' if strong else ""


def _told(metric: str, line: Line) -> str:
    return ", ".join(f"{number(row.test[metric].mean)} at {value}" for value, row in line.rows.items())


def _one_line(metric: str, line: Line, look: int, xs: dict[str, float], scale: svg.Scale) -> list[str]:
    colour, shape = _look(look)
    points = [(xs[value], scale(row.test[metric].mean)) for value, row in line.rows.items()]
    parts = [svg.polyline(points, colour, more="" if look < len(svg.COLOURS) else 'stroke-dasharray="6 4"')]
    for (value, row), (x, y) in zip(line.rows.items(), points, strict=True):
        said = f"{line.name} at {value}: {number(row.test[metric].mean)}, 95% interval {interval(row.low, row.high)}"
        bar = svg.line(x, scale(row.low), x, scale(row.high), colour, 2, 'opacity=".35"')
        parts.append(svg.group(said, bar, svg.marker(shape, x, y, colour)))
    return parts


def _names(
    lines: list[Line], looks: list[int], wanted: list[float], x: float, within: tuple[float, float]
) -> list[str]:
    """Names of lines beside their ends, moved apart where they would overlap."""
    parts = []
    for line, look, y in zip(lines, looks, _apart(wanted, *within), strict=True):
        colour, shape = _look(look)
        parts.append(svg.marker(shape, x + 8, y, colour, size=4))
        parts.append(svg.text(x + 18, y + 4.5, svg.clipped(line.name, svg.WIDTH - x - 20)))
    return parts


def _apart(wanted: list[float], top: float, bottom: float) -> list[float]:
    """Heights near those wanted, in their order, a line of text apart as far as there is room."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    gap = min(17.0, (bottom - top) / len(wanted))
    placed, floor, ceiling = list(wanted), top, bottom
    for place in order:
        placed[place] = max(wanted[place], floor)
        floor = placed[place] + gap
    for place in reversed(order):
        placed[place] = min(placed[place], ceiling)
        ceiling = placed[place] - gap
    return placed


Box = tuple[float, float, float, float]


def _beside(x: float, y: float, name: str, taken: list[Box]) -> str:
    """A name beside its point where there is room; nothing where there is none (pointing at it tells)."""
    shown = svg.clipped(name, 220, 12)
    wide = svg.text_width(shown, 12)
    for at, base, anchor in (
        (x + 10, y + 4, "start"),
        (x - 10, y + 4, "end"),
        (x, y - 10, "middle"),
        (x, y + 20, "middle"),
        (x + 9, y - 8, "start"),
        (x + 9, y + 17, "start"),
        (x - 9, y - 8, "end"),
        (x - 9, y + 17, "end"),
        (x + 10, y + 20, "end"),
        (x + 10, y - 10, "end"),
    ):
        start = at - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
        box = (start, base - 11, start + wide, base + 3)
        if start > 62 and box[2] < svg.WIDTH and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return svg.text(at, base, shown, anchor, more=f'font-size="12" {HALO}')
    return ""


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def across(scale: svg.Scale, top: float, bottom: float, say: Callable[[float], str] | None = None) -> list[str]:
    """Ticks of an axis from left to right; `say` words them."""
    ticks = scale.ticks()
    decimals = _decimals(ticks)
    parts = []
    for tick in ticks:
        words = say(tick) if say else number(tick, decimals)
        parts.append(svg.line(scale(tick), top, scale(tick), bottom))
        parts.append(svg.text(scale(tick), bottom + 19, words, "middle", svg.MUTED))
    return parts


def _up(scale: svg.Scale, left: float, right: float) -> list[str]:
    """Ticks of an axis from bottom to top."""
    ticks = scale.ticks()
    decimals = _decimals(ticks)
    parts = []
    for tick in ticks:
        parts.append(svg.line(left, scale(tick), right, scale(tick)))
        parts.append(svg.text(left - 8, scale(tick) + 4.5, number(tick, decimals), "end", svg.MUTED))
    return parts


def _plain(value: float) -> str:
    """A round value with as many digits as it needs: `0.002`, `50`, `20,000`."""
    return f"{value:,.9f}".rstrip("0").rstrip(".")


def _decimals(ticks: list[float]) -> int:
    return max((len(f"{tick:.4f}".rstrip("0").partition(".")[2]) for tick in ticks), default=2) or 1


def axis_name(x: float, bottom: float, words: str) -> str:
    """What an axis from left to right shows."""
    return svg.text(x, bottom + 39, words, "middle", svg.MUTED)


def _side_name(words: str, y: float) -> str:
    return svg.text(13, y, words, "middle", svg.MUTED, f'transform="rotate(-90 13 {y:.1f})"')
