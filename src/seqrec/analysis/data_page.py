"""A data report as one HTML page."""

from __future__ import annotations

from pathlib import Path

from seqrec.analysis import data_figures, html
from seqrec.analysis.bars import Bars
from seqrec.analysis.data_report import DataReport
from seqrec.analysis.html import Html
from seqrec.analysis.wording import ORDER_HEADERS, TARGET_HEADERS, duration, order_rows, share, target_rows
from seqrec.files import atomic_file


def write_html(report: DataReport, path: Path) -> None:
    """Write the page, which needs nothing beside it, over `path`.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DiskError: the disk is full or the folder may not be written.
    """
    text = render(report)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(report: DataReport) -> str:
    """The page as text."""
    facts = report.facts
    lead = (
        f"{facts['events']:,} events of {facts['users']:,} users with {facts['items']:,} items, "
        + (f"{facts['first']} to {facts['last']}" if "first" in facts else "in order, without clock times")
        + f". Described is what is left after all filters ({facts['k_core']}-core)."
    )
    parts = [_numbers(report), _order(report), _histories(report), _popularity(report), _time(report), _targets(report)]
    end = html.footer(f"Test targets {facts['test_targets'][:16]} · log {facts['fingerprint'][:16]} · made by seqrec")
    return html.page(f"Data: {report.name}", lead, [part for part in parts if part] + [end])


def _numbers(report: DataReport) -> Html:
    facts = report.facts
    pairs = [
        ("users", f"{facts['users']:,}"),
        ("items", f"{facts['items']:,}"),
        ("events", f"{facts['events']:,}"),
        ("density", share(facts["density"])),
        ("events per user, median", f"{facts['length']['median']:g}"),
        ("repeated events", share(report.repeats)),
        ("events tied in time", "no clock" if report.ties is None else share(report.ties)),
    ]
    if report.order is not None and report.order.loss is not None:
        pairs.append(("lost by shuffling", f"{report.order.loss:.0%}"))
    return html.numbers(pairs)


def _order(report: DataReport) -> Html | None:
    found = report.order
    if found is None:
        return None
    return html.section(
        "How sequential is it?",
        html.paragraph(found.verdict, "verdict"),
        html.figure(data_figures.order(found), "NDCG@10 on the validation part."),
        html.table(
            f"Validation part, {found.cases:,} cases. NDCG@10 falls by {found.difference:.4f} "
            f"(paired standard error {found.error:.4f}).",
            ORDER_HEADERS,
            order_rows(found),
            left=2,
        ),
        html.paragraph(found.protocol, "note"),
    )


def _histories(report: DataReport) -> Html:
    length = report.facts["length"]
    return html.section(
        "How long are the histories?",
        html.paragraph(
            f"{length['min']:,} to {length['max']:,} events, mean {length['mean']:.1f}, median {length['median']:g}."
        ),
        html.figure(
            data_figures.lengths(report.lengths), "Users by number of events.", _behind(report.lengths, "users")
        ),
        html.table(
            "Users and items with few events: little can be learned about each of them.",
            ("fewer than", "users", "share of users", "items", "share of items"),
            [
                (
                    f"{k} events", f"{users:,}", share(users / report.facts["users"]),
                    f"{items:,}", share(items / report.facts["items"]),
                )
                for k, users, items in report.fewer
            ],
        ),
    )  # fmt: skip


def _popularity(report: DataReport) -> Html:
    found = report.popularity
    return html.section(
        "How unequal are the items?",
        html.paragraph(
            f"Gini coefficient {found.gini:.2f}: 0 if all items occur alike, near 1 if few have everything."
        ),
        html.figure(data_figures.popularity(found), "Share of all events that the most popular items have."),
        html.table(
            "Most popular items",
            ("share of items", "share of events"),
            [(f"top {100 * top:g}%", share(held)) for top, held in found.top],
        ),
    )


def _time(report: DataReport) -> Html:
    heading = "When did it happen?"
    if report.coverage is None or report.gaps is None:
        text = "This log has no clock times, only an order: there is nothing to say about days, gaps and ties."
        return html.section(heading, html.paragraph(text))
    unit, bars = report.coverage.unit, report.coverage.bars
    median = "" if report.gaps.median is None else f", median {duration(report.gaps.median)} without ties"
    return html.section(
        heading,
        html.figure(data_figures.coverage(bars, unit), f"Events per {unit}, UTC.", _behind(bars, "events")),
        html.figure(
            data_figures.gaps(report.gaps.bars),
            f"Time between neighbouring events of a user{median}. At the same time: tied, the file decides the order.",
            _behind(report.gaps.bars, "gaps"),
        ),
    )


def _targets(report: DataReport) -> Html:
    return html.section(
        "What is odd about the targets?",
        html.table(
            f"Shares of the cases of each part. Split: {report.facts['split']}.", TARGET_HEADERS, target_rows(report)
        ),
        html.paragraph(
            "Cold: the item does not occur in the training part, so no model of ids can know it. Repeated: the user "
            "had it before; missed where seen items are left out. Tied: same time as the event before, so that the "
            "order of the file decides which of them is the target.",
            "note",
        ),
    )


def _behind(bars: Bars, what: str) -> Html:
    total = bars.total
    rows = [(name, f"{count:,}", share(count / total)) for name, count in zip(bars.names, bars.counts, strict=True)]
    return html.table("The numbers of the figure", ("", what, "share"), rows)
