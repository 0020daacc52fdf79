"""The figures of a data report as inline SVG: real text, the colours of the page, nothing to load.

matplotlib draws in stand-in colours, which become the page's CSS variables, so that one picture is right in the light
and in the dark. No text of the data is drawn.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING

from seqrec.analysis.bars import Bars
from seqrec.analysis.data_report import Popularity
from seqrec.analysis.html import Html
from seqrec.analysis.sequentiality import OrderEffect
from seqrec.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER, INK, MUTED, LINE, ACCENT, SECOND = "#010202", "#010203", "#010204", "#010205", "#010206", "#010207"
#: Stand-in colours and the variables of `html.STYLE` that they become.
COLOURS = {PAPER: "paper", INK: "ink", MUTED: "muted", LINE: "line", ACCENT: "accent", SECOND: "second"}
#: Width in inches: a point of it is about 1.3 pixels on a page of full width.
WIDTH = 8.6
#: Bars that can each be named; of more, about this many are.
NAMED = 14


def lengths(bars: Bars) -> Html:
    """Users by number of events, one upright bar per bin."""
    with _drawing() as (figure, axes):
        _upright(axes, bars)
        total = bars.total
        for place, count in enumerate(bars.counts):
            axes.annotate(f"{count / total:.0%}" if count / total >= 0.01 else f"{count:,}", (place, count), (0, 3),
                          textcoords="offset points", ha="center", color=INK)  # fmt: skip
        axes.set_yticks([])
        axes.margins(y=0.12)
        axes.set_xlabel("events of a user")
        return _svg(figure, "lengths", f"Bar chart of users by number of events. {_most(bars, 'users')}")


def coverage(bars: Bars, unit: str) -> Html:
    """Events over time, one bar per day, week, month or year."""
    with _drawing() as (figure, axes):
        _upright(axes, bars, gap=0.25 if len(bars.counts) <= 60 else 0.0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.yaxis.grid(True, color=LINE)
        axes.locator_params(axis="y", nbins=4, integer=True)
        axes.set_ylabel(f"events per {unit}")
        what = f"Bar chart of events per {unit}, {bars.names[0]} to {bars.names[-1]}."
        return _svg(figure, "coverage", f"{what} {_most(bars, 'events')}")


def gaps(bars: Bars) -> Html:
    """Time between neighbouring events, one lying bar per bin."""
    with _drawing(height=2.9) as (figure, axes):
        total = bars.total
        _lying(axes, bars.names, [100 * count / total for count in bars.counts], "{:.1f}%", [ACCENT] * len(bars.names))
        return _svg(
            figure, "gaps", f"Bar chart of the time between a user's neighbouring events. {_most(bars, 'gaps')}"
        )


def popularity(found: Popularity) -> Html:
    """Share of events against share of items, most popular first, beside what equal items would give."""
    with _drawing(height=3.2) as (figure, axes):
        x, y = zip(*found.curve, strict=True)
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
        axes.plot([100 * value for value in x], [100 * value for value in y], color=ACCENT, linewidth=2)
        axes.annotate("if all items were equal", (62, 62), (8, -4), textcoords="offset points", va="top", color=MUTED)
        behind = {"facecolor": PAPER, "edgecolor": "none", "pad": 1}  # the diagonal does not cross a label
        for share, held in found.top:
            if share in (0.01, 0.1, 0.5):
                axes.plot([100 * share], [100 * held], marker="o", color=ACCENT, markersize=5)
                axes.annotate(f"top {share:.0%}: {held:.0%}", (100 * share, 100 * held), (9, -5),
                              textcoords="offset points", va="center", color=INK, bbox=behind)  # fmt: skip
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 104)
        axes.yaxis.grid(True, color=LINE)
        axes.set_xlabel("% of items, most popular first")
        axes.set_ylabel("% of events")
        alt = "; ".join(f"the top {100 * share:g}% of items have {held:.0%} of the events" for share, held in found.top)
        return _svg(figure, "popularity", f"Curve of the share of events over the share of items: {alt}.")


def order(found: OrderEffect) -> Html:
    """NDCG@10 of the chain on true and on shuffled histories, and of popularity."""
    with _drawing(height=1.5) as (figure, axes):
        names = [f"{row.model}, {row.histories}" for row in found.rows]
        values = [row.ndcg for row in found.rows]
        _lying(axes, names, values, "{:.4f}", [ACCENT, SECOND, MUTED])
        alt = "; ".join(f"{name}: {value:.4f}" for name, value in zip(names, values, strict=True))
        return _svg(figure, "order", f"Bar chart of NDCG@10. {alt}.")


def _upright(axes: Axes, bars: Bars, gap: float = 0.25) -> None:
    axes.bar(range(len(bars.counts)), bars.counts, width=1 - gap, color=ACCENT, linewidth=0)
    step = -(-len(bars.names) // NAMED)
    axes.set_xticks(range(0, len(bars.names), step), bars.names[::step])
    if max(map(len, bars.names)) * len(bars.names[::step]) > 90:
        axes.tick_params(axis="x", labelrotation=35)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")
    axes.set_xlim(-0.6, len(bars.names) - 0.4)


def _lying(axes: Axes, names: object, values: list[float], form: str, colours: list[str]) -> None:
    axes.barh(range(len(values)), values, height=0.66, color=colours, linewidth=0)
    for place, value in enumerate(values):
        axes.annotate(form.format(value), (value, place), (5, 0), textcoords="offset points", va="center", color=INK)
    axes.set_yticks(range(len(values)), names)  # type: ignore[arg-type]
    axes.tick_params(axis="y", labelcolor=INK)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.set_xlim(0, max(*values, 1e-9) * 1.1)
    axes.spines["bottom"].set_visible(False)
    axes.spines["left"].set_visible(True)


@contextmanager
def _drawing(height: float = 2.7) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure in the style of the page; matplotlib's own settings stay as they were.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "figures") from error
    style = {
        "svg.fonttype": "none", "font.size": 9, "text.parse_math": False, "axes.axisbelow": True,
        "text.color": INK, "axes.labelcolor": MUTED, "xtick.color": LINE, "ytick.color": LINE,
        "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED, "axes.edgecolor": LINE, "grid.linewidth": 0.7,
        "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "ytick.major.size": 0,
        "xtick.major.size": 0, "svg.hashsalt": "seqrec",
    }  # fmt: skip
    with matplotlib.rc_context(style):  # type: ignore[arg-type]
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.subplots()


def _svg(figure: Figure, name: str, alt: str) -> Html:
    """The drawing as an `<svg>` element whose ids no other figure of the page has."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    inside = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL
    )
    box = re.search(r'viewBox="([^"]*)"', inside)
    inside = re.sub(r"^<svg[^>]*>|</svg>\s*$", "", inside)
    inside = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", inside).replace("xlink:href", "href")
    for stand_in, variable in COLOURS.items():
        inside = inside.replace(stand_in, f"var(--{variable})")
    view = box[1] if box else ""
    return Html(f'<svg role="img" aria-label="{escape(alt)}" viewBox="{view}">{inside}</svg>')


def _most(bars: Bars, what: str) -> str:
    most = bars.fullest
    return f"Most {what} ({bars.counts[most]:,} of {sum(bars.counts):,}) at {bars.names[most]}."
