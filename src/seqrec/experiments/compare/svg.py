"""Figures by hand: SVG that carries its own colours, a title and a description, and nothing from elsewhere.

Lengths are in units of the view box, about a pixel each on a wide page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from unicodedata import east_asian_width

#: Okabe and Ito, Color Universal Design, 2008, without yellow, which white paper swallows.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b5518f", "#a07400", "#3a9bd6", "#333333")
MARKERS = ("circle", "square", "diamond", "triangle", "down")
INK, MUTED, GRID = "#1c2128", "#5b6470", "#e3e7eb"
WIDTH = 780.0
SIZE = 13.0
#: Ticks that a logarithmic axis has at most.
MOST = 10
#: Widths in parts of the size, of the widest common fonts rather than of the usual one.
NARROW, ROUND, BROAD = 0.42, 0.64, 1.0
BOLD = 1.1


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` (which differ) drawn from `start` to `end`; in logarithms if `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(x) if self.log else x for x in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, about: int = 6) -> list[float]:
        """Round values within the scale."""
        return self._powers() if self.log else self._steps(about)

    def _steps(self, about: int) -> list[float]:
        rough = (self.high - self.low) / about
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= rough * 0.75)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]

    def _powers(self) -> list[float]:
        """1, 2 and 5 times powers of ten, or as few of the powers as are not too many."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found = self._within([10.0**power * times for power in powers for times in (1, 2, 5)])
        if len(found) <= MOST:
            return found
        found = self._within([10.0**power for power in powers])
        return found[:: math.ceil(len(found) / MOST)]

    def _within(self, values: list[float]) -> list[float]:
        return [value for value in values if self.low * 0.999 <= value <= self.high * 1.001]


def padded(values: list[float], share: float = 0.06) -> tuple[float, float]:
    """Ends of a linear scale with room around values; they differ even where values do not."""
    low, high = min(values), max(values)
    room = (high - low) * share or max(abs(high) * 0.1, 0.01)
    return low - room, high + room


def padded_log(values: list[float]) -> tuple[float, float]:
    """The same for positive values on a logarithmic scale: at least a factor of ten apart, so that ticks are three."""
    low, high = min(values) / 1.4, max(values) * 1.4
    stretch = max(10 / (high / low), 1) ** 0.5
    return low / stretch, high * stretch


def text_width(text: str, size: float = SIZE, bold: bool = False) -> float:
    """How much room text needs in a proportional font, whichever it is."""
    return size * (BOLD if bold else 1.0) * sum(map(_wide, text))


def _wide(c: str) -> float:
    if east_asian_width(c) in "WF" or c in "mwMW@%…—":
        return BROAD
    return NARROW if c in "fijlrtI .,:;'|!()[]-/" else 0.76 if c.isupper() or c in "+=<>~±" else ROUND


def clipped(text: str, most: float, size: float = SIZE, bold: bool = False) -> str:
    """Text that fits into `most`, its end cut off where it has to be."""
    if text_width(text, size, bold) <= most:
        return text
    while text and text_width(text + "…", size, bold) > most:
        text = text[:-1]
    return text.rstrip() + "…"


def text(x: float, y: float, words: str, anchor: str = "start", colour: str = INK, more: str = "") -> str:
    """One line of text; `anchor` is start, middle or end."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" {more}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str = GRID, width: float = 1, more: str = "") -> str:
    """A straight line."""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width:g}" {more}/>'


def polyline(points: list[tuple[float, float]], colour: str, width: float = 2, more: str = "") -> str:
    """A line through points."""
    where = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{where}" fill="none" stroke="{colour}" stroke-width="{width:g}" {more}/>'


def marker(shape: str, x: float, y: float, colour: str, filled: bool = True, size: float = 5) -> str:
    """A point; hollow ones are white inside."""
    look = f'fill="{colour if filled else "#ffffff"}" stroke="{colour}" stroke-width="2"'
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:g}" {look}/>'
    corners = {
        "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        "triangle": ((0, -1.2), (1.2, 0.9), (-1.2, 0.9)),
        "down": ((0, 1.2), (1.2, -0.9), (-1.2, -0.9)),
    }[shape]
    where = " ".join(f"{x + dx * size * 0.9:.1f},{y + dy * size * 0.9:.1f}" for dx, dy in corners)
    return f'<polygon points="{where}" {look}/>'


def group(tooltip: str, *parts: str) -> str:
    """Things that belong together and say what they are when pointed at."""
    return f"<g><title>{escape(tooltip)}</title>{''.join(parts)}</g>"


def figure(name: str, title: str, description: str, height: float, parts: list[str]) -> str:
    """The whole drawing; `name` is unique on its page."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:g}" role="img" '
        f'aria-labelledby="{name}-title {name}-desc" font-size="{SIZE:g}">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
        f"{''.join(parts)}</svg>"
    )
