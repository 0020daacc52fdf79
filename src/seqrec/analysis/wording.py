"""How numbers of a data report are written, the same on a terminal and on a page."""

from __future__ import annotations

from seqrec.analysis.data_report import DataReport
from seqrec.analysis.sequentiality import OrderEffect

ORDER_HEADERS = ("model", "histories", "NDCG@10", "Recall@10")
TARGET_HEADERS = ("part", "cases", "cold", "repeated", "tied")


def share(value: float) -> str:
    """A share in percent with as many digits as say something: `44.6%`, `0.07%`."""
    return f"{value:.1%}" if value >= 0.01 or value == 0 else f"{value:.2%}"


def duration(seconds: float) -> str:
    """Seconds in the largest unit of which there is one: `37 s`, `2.5 days`."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def order_rows(found: OrderEffect) -> list[tuple[str, str, str, str]]:
    """Cells under `ORDER_HEADERS`."""

    def cell(value: float, spread: float | None) -> str:
        return f"{value:.4f}" if spread is None else f"{value:.4f} ± {spread:.4f}"

    return [
        (row.model, row.histories, cell(row.ndcg, row.ndcg_spread), cell(row.recall, row.recall_spread))
        for row in found.rows
    ]


def target_rows(report: DataReport) -> list[tuple[str, ...]]:
    """Cells under `TARGET_HEADERS`."""
    return [
        (
            part.part,
            f"{part.cases:,}",
            share(part.cold),
            share(part.repeated),
            share(part.tied),
        )
        for part in report.targets
    ]
