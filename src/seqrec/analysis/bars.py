"""Counts by name: what a bar chart shows, on a terminal and on a page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bars:
    """Counts by name, in order; as many names as counts, at least one."""

    names: tuple[str, ...]
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        """All counts together, and 1 where there is nothing, so that shares can be taken."""
        return max(sum(self.counts), 1)

    @property
    def fullest(self) -> int:
        """Place of the largest count, the first of equal ones."""
        return max(range(len(self.counts)), key=self.counts.__getitem__)
