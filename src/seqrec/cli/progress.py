"""How training goes, live on a terminal, one line per epoch elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from seqrec.training.tracking import Progress as Report


class LiveProgress:
    """A tracker that draws; see `seqrec.training.tracking.Tracker`."""

    def __init__(self, console: Console, metric: str) -> None:
        self._console = console
        self._metric = metric
        self._last = ""
        self._left = ""
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn(
                "loss {task.fields[loss]} · {task.fields[speed]} tokens/s · {task.fields[left]} left for all epochs"
            ),
            TextColumn("{task.fields[metric]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1, epoch="", loss="", speed="", left="", metric="")

    def started(self, facts: Mapping[str, Any]) -> None:
        resumed = f", resumed after epoch {facts['epochs_done']}" if facts["epochs_done"] else ""
        self._console.print(f"{facts['parameters']:,} parameters on {facts['device']}{resumed}")
        if self._console.is_terminal:
            self._bar.start()

    def progressed(self, progress: Report) -> None:
        self._left = _duration(progress.seconds_left)
        self._bar.update(
            self._task,
            total=progress.steps,
            completed=progress.step,
            epoch=f"{progress.epoch}/{progress.epochs}",
            loss=f"{progress.loss:.3f}",
            speed=f"{progress.tokens_per_second:,.0f}",
            left=self._left,
            metric=self._last,
        )

    def epoch_ended(self, record: Mapping[str, Any]) -> None:
        if "validation" in record:
            self._last = f"validation {self._metric} {record['validation'][self._metric]:.4f}" + (
                " (best)" if record["best"] else ""
            )
        if not self._console.is_terminal:
            parts = [f"epoch {record['epoch']:>3}", f"loss {record['train']['loss']:.3f}"]
            parts += [self._last] if "validation" in record else []
            parts += [f"{record['speed']['tokens_per_second']:,.0f} tokens/s", f"{self._left} left for all epochs"]
            self._console.print("  ".join(parts))

    def ended(self, facts: Mapping[str, Any]) -> None:
        self.close()

    def close(self) -> None:
        """Take the live display away; safe to call twice."""
        if self._bar.live.is_started:
            self._bar.stop()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
