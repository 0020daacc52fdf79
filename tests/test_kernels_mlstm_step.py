"""One event of the mLSTM against the paper's equations in float64, in whole tensors and in blocks."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from seqrec.kernels.mlstm import MLSTMState, initial_state
from seqrec.kernels.mlstm.step import step

#: `seqrec.kernels.mlstm.step` is the function; this is the file.
MODULE = sys.modules[step.__module__]
B, H, K, V = 5, 2, 6, 4


@pytest.fixture(params=["whole", "blocks"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Blocks of three float32 memories (the last of them shorter) or one float64 memory; or all at once."""
    monkeypatch.setattr(MODULE, "BLOCK_BYTES", 3 * 4 * K * V if request.param == "blocks" else 1 << 30)
    return str(request.param)


def events(length: int, seed: int = 0, gates: float = 2.0, rows: int = B) -> Iterator[list[Tensor]]:
    """q, k, v, i, f of each event, exact in float32."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows, H, K), (rows, H, K), (rows, H, V), (rows, H), (rows, H)]
    for _ in range(length):
        q, k, v, i, f = (torch.randn(*shape, generator=generator).double() for shape in shapes)
        yield [q, k, v, (gates * i).float().double(), (gates * f + 2).float().double()]


def empty(dtype: torch.dtype = torch.float64, rows: int = B) -> MLSTMState:
    return initial_state(rows, H, K, V, torch.empty(0, dtype=dtype))


class Paper:
    """C = f C + i k v', n = f n + i k, h = C' q / max(|n.q|, 1), number by number and without stabilisation."""

    def __init__(self) -> None:
        self.memory = [[[0.0] * V for _ in range(K)] for _ in range(B * H)]
        self.normaliser = [[0.0] * K for _ in range(B * H)]

    def step(self, q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
        parts = (q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), i.flatten(), f.flatten())
        cells = zip(*(part.tolist() for part in parts), self.memory, self.normaliser, strict=True)
        return torch.tensor([self._cell(*cell) for cell in cells], dtype=torch.float64).view(B, H, V)

    @staticmethod
    def _cell(
        q: list[float], k: list[float], v: list[float], i: float, f: float, memory: list[list[float]], n: list[float]
    ) -> list[float]:
        forget, add = 1 / (1 + math.exp(-f)), math.exp(i) / math.sqrt(K)
        for row in range(K):
            n[row] = forget * n[row] + add * k[row]
            memory[row] = [forget * memory[row][column] + add * k[row] * v[column] for column in range(V)]
        scale = max(abs(sum(n[row] * q[row] for row in range(K))), 1.0)
        return [sum(memory[row][column] * q[row] for row in range(K)) / scale for column in range(V)]


@pytest.mark.usefixtures("form")
def test_float64_is_the_paper() -> None:
    paper, state = Paper(), empty()
    for x in events(60):
        h, state = step(*x, state)
        torch.testing.assert_close(h, paper.step(*x), rtol=1e-9, atol=1e-12)
    scale = torch.exp(state.log_scale) * K**-0.5
    memory = (state.memory * scale[..., None, None]).view(-1, K, V)
    torch.testing.assert_close(memory, torch.tensor(paper.memory, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    normaliser = (state.normaliser * scale[..., None]).view(-1, K)
    torch.testing.assert_close(normaliser, torch.tensor(paper.normaliser, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("form")
def test_float32_is_near_float64_at_ordinary_gates() -> None:
    errors = relative_errors(200, torch.float32, gates=1.0)
    assert errors.median() < 1e-6
    assert errors.quantile(0.99) < 1e-5


@pytest.mark.parametrize("gates", [2.0, 50.0])
def test_blocks_give_the_numbers_of_the_whole(gates: float, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [empty(torch.float32), empty(torch.float32)]
    for x in events(100, gates=gates):
        found: list[tuple[Tensor, ...]] = []
        for form, size in enumerate((1 << 30, 3 * 4 * K * V)):
            monkeypatch.setattr(MODULE, "BLOCK_BYTES", size)
            h, states[form] = step(*(part.float() for part in x), states[form])
            assert torch.isfinite(h).all()
            found.append((h, *states[form]))
        torch.testing.assert_close(found[1], found[0], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(("size", "called"), [(0, 10), (4 * K * V, 10), (4 * 4 * K * V, 3), (4 * 10 * K * V, 1)])
def test_blocks_are_of_the_size_asked_for(size: int, called: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "BLOCK_BYTES", size)
    products, product = [], torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda *x, **to: products.append(len(x[0])) or product(*x, **to))
    step(*(part.float() for part in next(events(1))), empty(torch.float32))
    assert len(products) == called
    assert sum(products) == B * H


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("memory", [torch.float32, torch.bfloat16])
def test_the_state_given_stays_as_it_is(memory: torch.dtype) -> None:
    first, second = (tuple(part.float() for part in x) for x in events(2))
    _, state = step(*first, empty(torch.float32))
    state = state._replace(memory=state.memory.to(memory))
    before = [part.clone() for part in (*state, *second)]
    h, after = step(*second, state)
    assert all(torch.equal(now, then) for now, then in zip((*state, *second), before, strict=True))
    assert not {part.data_ptr() for part in after} & {part.data_ptr() for part in state}
    again, _ = step(*second, state)
    assert torch.equal(h, again)


@pytest.mark.usefixtures("form")
def test_any_layout_will_do() -> None:
    x = next(events(1))
    _, state = step(*x, empty())
    expected = step(*x, state)
    scattered = [part.mT.contiguous().mT if part.dim() > 2 else part.T.contiguous().T for part in x]
    turned = MLSTMState(*(part.transpose(0, 1).contiguous().transpose(0, 1) for part in state))
    for found in (step(*scattered, state), step(*x, turned)):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("values", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("memory", [torch.bfloat16, torch.float32])
def test_dtypes(values: torch.dtype, memory: torch.dtype) -> None:
    state = empty(torch.float32)._replace(memory=torch.zeros(B, H, K, V, dtype=memory))
    for x in events(2):
        h, state = step(*(part.to(values) for part in x), state)
    assert h.dtype == values
    assert [part.dtype for part in state] == [memory, torch.float32, torch.float32]


@pytest.mark.usefixtures("form")
def test_no_session_is_no_trouble() -> None:
    h, state = step(*next(events(1, rows=0)), empty(rows=0))
    assert h.shape == (0, H, V)
    assert state.memory.shape == (0, H, K, V)


@pytest.mark.usefixtures("form")
def test_a_session_does_not_see_its_neighbours() -> None:
    x = next(events(1))
    _, state = step(*x, empty())
    state.memory[1] = torch.nan
    h, after = step(*x, state)
    clean = [0, 2, 3, 4]
    assert torch.isfinite(h[clean]).all()
    assert torch.isfinite(after.memory[clean]).all()
    assert h[1].isnan().all()


@pytest.mark.usefixtures("form")
def test_gradients_are_those_of_finite_differences() -> None:
    first, second = ([part[:1, :1] for part in x] for x in events(2))
    _, state = step(*first, MLSTMState(*(part[:1, :1] for part in empty())))
    leaves = [part.clone().requires_grad_() for part in second]
    memory, normaliser = (part.clone().requires_grad_() for part in state[:2])

    def hidden(*x: Tensor) -> Tensor:
        return step(*x[:5], MLSTMState(x[5], x[6], state.log_scale))[0]

    assert torch.autograd.gradcheck(hidden, (*leaves, memory, normaliser))


@pytest.mark.usefixtures("form")
def test_one_gate_that_learns_is_enough_for_gradients() -> None:
    *x, f = next(events(1))
    _, state = step(*x, f, empty())
    h, after = step(*x, f.requires_grad_(), state)
    assert not after.log_scale.requires_grad
    gradient = torch.autograd.grad(h.sum(), f)[0]
    above, below = (step(*x, f.detach() + way, state)[0].sum((0, 2)).sum() for way in (1e-6, -1e-6))
    torch.testing.assert_close(gradient.sum(), (above - below) / 2e-6, rtol=1e-5, atol=1e-8)


def test_compiled_rounding_is_random_too() -> None:
    exact = torch.full((1000, 1, K, V), 1 + 2.0**-9)  # a quarter of the way to the next number in bfloat16
    compiled = torch.compile(MODULE._narrowed, backend="aot_eager", fullgraph=True)
    found = compiled(exact.clone(), torch.bfloat16)
    assert found.dtype == torch.bfloat16
    assert found.unique().tolist() == [1, 1 + 2.0**-7]
    assert (found > 1).double().mean() == pytest.approx(0.25, abs=0.02)


@pytest.mark.usefixtures("form")
def test_traced_and_exported_it_is_the_same() -> None:
    x = [part.float() for part in next(events(1))]
    _, state = step(*x, empty(torch.float32))
    expected = step(*x, state)
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*x, state), expected, rtol=1e-5, atol=1e-6)

    class Step(torch.nn.Module):
        def forward(self, x: list[Tensor], state: MLSTMState) -> tuple[Tensor, MLSTMState]:
            return step(*x, state)

    exported = torch.export.export(Step(), (x, state)).module()
    torch.testing.assert_close(exported(x, state), expected, rtol=1e-5, atol=1e-6)


def relative_errors(length: int, memory: torch.dtype, gates: float = 1.0, forget: float = 0.0) -> Tensor:
    """Of h against float64, (length, B, H)."""
    torch.manual_seed(0)  # rounding to bfloat16 draws from it
    exact, state, errors = empty(), empty(torch.float32), []
    state = state._replace(memory=state.memory.to(memory))
    with torch.inference_mode():
        for *x, f in events(length, gates=gates):
            f = f + forget
            expected, exact = step(*x, f, exact)
            h, state = step(*(part.float() for part in (*x, f)), state)
            errors.append((h - expected).norm(dim=-1) / expected.norm(dim=-1))
    return torch.stack(errors)


def test_bfloat16_memory_over_a_long_life() -> None:
    """A memory of a few hundred events is off by some percent, and no more so after 10,000 events than after 1,000."""
    errors = relative_errors(10_000, torch.bfloat16, gates=0.5, forget=4.0)
    young, old = errors[900:1000].median().item(), errors[-100:].median().item()
    assert 1e-3 < old < 0.05, old
    assert old < 1.5 * young


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("again", [0.0, 0.1, 1.0])
def test_bfloat16_keeps_the_mean_where_an_event_repeats(again: float) -> None:
    """Rounded to the nearest, 0.998 C + 0.002 would be C again, and the memory would stop at half of what it should
    be, or never forget."""
    key, open_, ajar = torch.ones(1, H, K), torch.full((1, H), 2.0), torch.zeros(1, H)
    forget, hidden = torch.full((1, H), 6.2), []
    for memory in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        state = empty(torch.float32, rows=1)
        _, state = step(key, key, torch.ones(1, H, V), open_, forget, state._replace(memory=state.memory.to(memory)))
        last = []
        for _ in range(3000):
            h, state = step(key, key, torch.full((1, H, V), again), ajar, forget, state)
            last = [*last[-499:], h.mean()]
        hidden.append(torch.stack(last).mean())
    torch.testing.assert_close(hidden[1], hidden[0], rtol=0.02, atol=2e-4)


def test_rounding_is_right_on_average_and_to_a_neighbour() -> None:
    exact = torch.randn(3, K, V, generator=torch.Generator().manual_seed(0))
    exact[0, 0] = torch.tensor([0.0, -0.0, torch.inf, 1.0])
    found = torch.stack([MODULE._narrowed(exact.clone(), torch.bfloat16) for _ in range(4000)]).float()
    assert torch.equal(found[:, 0, 0], exact[0, 0].expand(4000, -1))
    finite = exact.isfinite()
    step_size = torch.exp2(torch.floor(torch.log2(exact.abs().clamp(min=1e-30))) - 7)
    assert ((found - exact).abs() < step_size)[:, finite].all()
    assert ((found.mean(0) - exact).abs()[finite] <= 0.05 * step_size[finite]).all()
