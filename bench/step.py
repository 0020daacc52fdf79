"""What one live event costs: xLSTM, d 256, 2 blocks, 2 heads, scoring the 3,416 items of ML-1M after each event.

python bench/step.py [RUN]      the folder of such a run on ML-1M; without it two epochs are trained first
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import Row, record
from torch import Tensor, nn

import seqrec
from seqrec.data.prepared import PreparedData
from seqrec.models.state import bytes_per_session, named_parts, put, select, with_memory
from seqrec.models.xlstm import XLSTM

SETTINGS = {"model.embedding_dim": 256, "model.num_blocks": 2, "model.num_heads": 2}
BRIEF = {**SETTINGS, "model.max_length": 50, "training.epochs": 2}
AGES = (10, 1_000, 100_000)
EVENTS, SESSIONS, AT_A_TIME = 1_000, 1_000, 64
OFTEN = 2_000


def trained(data: PreparedData) -> tuple[XLSTM, str]:
    """The model, and how it came to its weights."""
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            run = seqrec.Run(Path(sys.argv[1]))
        else:
            run = seqrec.train(data, "xlstm", settings=BRIEF, out=Path(folder) / "run", device="cpu")
        scorer = run.recommender().scorer
    assert isinstance(scorer, XLSTM)
    epochs, length = run.config.training.epochs, scorer.config.max_length
    return scorer.eval(), f"trained {epochs} epochs at most on histories of {length}"


def fastest(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Milliseconds of each, the least of `rounds`, taken in turns."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            best[name] = min(best[name], 1e3 * (time.perf_counter() - began))
    return best


class Live:
    """The model with the item vectors that it scores, made once."""

    def __init__(self, model: XLSTM) -> None:
        self.model, self.vectors = model, model.item_vectors()

    def event(self, items_B: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        """Scores (B, N), hidden states (B, D), and the state after one more event per session."""
        h_BD, state = self.model.step(items_B, state)
        return self.vectors.score(h_BD), h_BD, state

    def bare(self, state: Any) -> Callable[[], None]:
        """The model's matrix products on the same sessions, into memory that is there, and a copy of their state."""
        linears = [part for part in self.model.blocks.modules() if isinstance(part, nn.Linear)]
        weights = [*(linear.weight for linear in linears), self.vectors.weight]
        rows = len(state.last_time)
        products = [(torch.randn(rows, w.shape[1]), w.T, torch.empty(rows, w.shape[0])) for w in weights]

        def work() -> None:
            for x, weight, out in products:
                torch.mm(x, weight, out=out)
            for part in named_parts(state).values():
                part.clone()

        return work


def one(live: Live) -> list[Row]:
    """One session, beside the bare products."""
    items_B = torch.randint(1, live.model.num_items + 1, (1,))
    state = live.event(items_B, live.model.initial_state(1))[2]
    works = {
        "bare": live.bare(state),
        "an event with its scores": lambda: live.event(items_B, state),
        "an event with its scores, by torch.compile": compiled(live, items_B, state),
    }
    return beside_bare("1 session", fastest(works, OFTEN))


def many(live: Live) -> list[Row]:
    """Many sessions, beside the bare products."""
    items_B = torch.randint(1, live.model.num_items + 1, (SESSIONS,))
    state = live.event(items_B, live.model.initial_state(SESSIONS))[2]
    works = {
        "bare": live.bare(state),
        "an event each with its scores": lambda: live.event(items_B, state),
        f"an event each, from a bank, {AT_A_TIME} at a time": lambda: from_bank(live, items_B, state, AT_A_TIME),
        "an event each, from a bank, all at a time": lambda: from_bank(live, items_B, state, SESSIONS),
    }
    return beside_bare(f"{SESSIONS:,} sessions", fastest(works, 12))


def beside_bare(who: str, best: dict[str, float]) -> list[Row]:
    """A row for the bare products, and one for everything else with how many times as long it takes."""
    bare = best.pop("bare")
    rows = [Row(f"{who}: the bare products and a copy of the state", f"{bare:.2f}", "ms")]
    for what, time_ms in best.items():
        goal = "" if "bank" in what else "<= 2 times"
        rows.append(Row(f"{who}: {what}", f"{time_ms:.2f} ({time_ms / bare:.2f} times)", "ms", goal))
    return rows


def compiled(live: Live, items_B: Tensor, state: Any) -> Callable[[], Any]:
    """An event by a step that torch has compiled; the first calls do that."""
    event = torch.compile(live.event)
    for _ in range(2):
        _, _, state = event(items_B, state)
    return lambda: event(items_B, state)


def from_bank(live: Live, items_B: Tensor, bank: Any, at_a_time: int) -> None:
    """An event for each session of a bank: pick some, step, put back."""
    for sessions in torch.arange(len(items_B)).split(at_a_time):
        _, _, after = live.event(items_B[sessions], select(bank, sessions))
        put(bank, sessions, after)


def flatness(live: Live) -> list[Row]:
    """One session at several ages."""
    state, states = live.model.initial_state(1), {}
    items = torch.randint(1, live.model.num_items + 1, (max(AGES), 1))
    for age, item in enumerate(items, 1):
        _, state = live.model.step(item, state)
        if age in AGES:
            states[age] = state
    best = fastest({str(age): lambda s=state: live.event(items[0], s) for age, state in states.items()}, OFTEN)
    spread = max(best.values()) / min(best.values())
    values = ", ".join(f"{best[str(age)]:.2f}" for age in AGES)
    ages = ", ".join(f"{age:,}" for age in AGES)
    return [
        Row(f"an event after {ages} events", values, "ms"),
        Row("slowest age over fastest", f"{spread:.2f}", "", "<= 1.05"),
    ]


def narrow(live: Live, data: PreparedData) -> list[Row]:
    """A bfloat16 memory beside float32, over real histories."""
    train = data.sequences
    long = np.flatnonzero(train.lengths >= EVENTS)[:AT_A_TIME]
    items_LB = torch.from_numpy(np.stack([train.items[train.starts[u] : train.starts[u] + EVENTS] for u in long], 1))
    full = live.model.initial_state(len(long))
    half = with_memory(full, torch.bfloat16)
    table = [
        Row("state of a session, float32", f"{bytes_per_session(full):,}", "bytes"),
        Row("state of a session, bfloat16 memory", f"{bytes_per_session(half):,}", "bytes"),
    ]
    errors, kept = [], []
    for items_B in items_LB.long():
        expected, h_BD, full = live.event(items_B, full)
        found, g_BD, half = live.event(items_B, half)
        errors.append(((g_BD - h_BD).norm(dim=1) / h_BD.norm(dim=1)).mean().item())
        same = expected.topk(10).indices[:, :, None] == found.topk(10).indices[:, None]
        kept.append(same.any(2).double().mean().item())
    for event in (10, 100, EVENTS):
        table.append(Row(f"bfloat16 memory: relative error of h, event {event:,}", f"{errors[event - 1]:.1e}", ""))
    table.append(Row(f"bfloat16 memory: relative error of h, mean of {EVENTS:,} events", f"{np.mean(errors):.1e}", ""))
    for name, shown in ((f"mean of {EVENTS:,} events", kept), ("last 100 events", kept[-100:])):
        table.append(Row(f"bfloat16 memory: of the ten best of float32, {name}", f"{10 * np.mean(shown):.2f}", "of 10"))
    return table


def main() -> None:
    """Measure and record."""
    torch.set_num_threads(1)
    data = seqrec.load_data("ml-1m")
    torch.manual_seed(0)
    model, weights = trained(data)
    torch.manual_seed(0)
    with torch.inference_mode():
        live = Live(model)
        table = [*one(live), *many(live), *flatness(live), *narrow(live, data)]
    protocol = (
        f"xLSTM, d 256, 2 blocks, 2 heads, {model.num_items:,} items, {weights}. The least of {OFTEN:,} times (of 12 "
        f"for 1,000 sessions), in turns, one process. bfloat16: first {EVENTS:,} events of {AT_A_TIME} people of ML-1M."
    )
    sys.argv[1:] = ["RUN"] * len(sys.argv[1:])
    record("step", table, protocol, "live.md", device="cpu")


if __name__ == "__main__":
    main()
