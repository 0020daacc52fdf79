"""When training reports, hears whether it should stop, and saves: a few times a second, and after the same steps on all
ranks. Each report waits for the device, and with several ranks for the slowest of them.
"""

from __future__ import annotations

import time

from seqrec.distributed import Ranks


class Pace:
    """Counts steps since the last report. Ranks agree at each one on how many there are until the next."""

    def __init__(self, ranks: Ranks, seconds: float) -> None:
        self._ranks = ranks
        self._seconds = seconds
        self._next = 1
        self.start()

    def start(self) -> None:
        """Count from now."""
        self._steps = 0
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the count started."""
        return time.monotonic() - self._started

    def due(self, asked: bool) -> bool:
        """Whether to report after this step: also because somebody `asked` to stop, where no rank has to be told."""
        self._steps += 1
        return asked or self.elapsed > self._seconds if self._ranks.size == 1 else self._steps >= self._next

    def agree(self, asked: bool, save: bool) -> tuple[bool, bool]:
        """Whether any rank was asked to stop, and whether any wants to save."""
        fitting = int(self._steps * self._seconds / max(self.elapsed, 1e-9))
        answers = self._ranks.each((asked, save, max(1, fitting)))
        self._next = answers[0][2]
        return any(answer[0] for answer in answers), any(answer[1] for answer in answers)
