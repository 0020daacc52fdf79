"""Rounding over 65,536 events: every form of the mLSTM that keeps a state, against float64.

python bench/drift.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from record import Row, record
from torch import Tensor

from seqrec.kernels.mlstm import MLSTMState, initial_state, mlstm_prefill, mlstm_step

EVENTS, H, K = 65_536, 2, 64
SHOWN = (10, 100, 1_000, 10_000, EVENTS)
PIECE = 1_000


def inputs() -> list[Tensor]:
    """q, k, v (1, H, L, K), i, f (1, H, L): normal; forget gates around 3 and 6, as heads of a new model have them."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, H, EVENTS, K, generator=generator) for _ in range(3))
    i, f = (torch.randn(1, H, EVENTS, generator=generator) for _ in range(2))
    return [q, k, v, i, 0.5 * f + torch.tensor([3.0, 6.0])[:, None]]


def by_steps(x: list[Tensor], state: MLSTMState) -> Tensor:
    """h (1, H, L, K), one event at a time."""
    hidden = []
    for event in zip(*(part.unbind(2) for part in x), strict=True):
        h, state = mlstm_step(*event, state)
        hidden.append(h)
    return torch.stack(hidden, 2)


def in_pieces(x: list[Tensor], state: MLSTMState) -> Tensor:
    """h (1, H, L, K), `PIECE` events at a time."""
    hidden = []
    for piece in zip(*(part.split(PIECE, 2) for part in x), strict=True):
        h, state = mlstm_prefill(*piece, state=state, kernel="native")
        hidden.append(h)
    return torch.cat(hidden, 2)


@torch.inference_mode()
def main() -> None:
    """Record the errors."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = inputs()
    exact = mlstm_prefill(*(part.double() for part in x), kernel="native")[0]
    empty = initial_state(1, H, K, K, x[0])
    forms: dict[str, Callable[[], Tensor]] = {
        "float32, event by event": lambda: by_steps(x, empty),
        "float32, chunkwise at once": lambda: mlstm_prefill(*x, kernel="native")[0],
        f"float32, chunkwise {PIECE:,} events at a time": lambda: in_pieces(x, empty),
        "bfloat16 memory, event by event": lambda: by_steps(x, empty._replace(memory=empty.memory.bfloat16())),
    }
    table = []
    for name, form in forms.items():
        error_L = (form() - exact)[0].square().sum((0, 2)).sqrt() / exact[0].square().sum((0, 2)).sqrt()
        at = ", ".join(f"{float(error_L[event - 1]):.1e}" for event in SHOWN)
        table.append(Row(f"{name}: at event {', '.join(f'{event:,}' for event in SHOWN)}", at, ""))
        table.append(Row(f"{name}: median, largest", f"{float(error_L.median()):.1e}, {float(error_L.max()):.1e}", ""))
    protocol = (
        f"Relative error of h (norm over heads and widths) against float64 chunkwise: one history of {EVENTS:,} "
        f"events, {H} heads of width {K}, normal inputs, forget gates around sigmoid(3) and sigmoid(6)."
    )
    record("drift", table, protocol, "live.md", device="cpu")


if __name__ == "__main__":
    main()
