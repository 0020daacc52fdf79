"""The choice among kernels of the mLSTM: what a name means here, and what is said where it cannot mean anything."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from seqrec.errors import ConfigError, MissingExtraError, UnknownNameError
from seqrec.kernels.mlstm import KERNELS, initial_state, mlstm, mlstm_prefill, mlstm_step


def inputs(width: int = 16) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 70, width, dtype=torch.float64).unbind()
    i, f = torch.randn(2, 2, 2, 70, dtype=torch.float64).unbind()
    return q, k, v, i, f


@pytest.mark.parametrize("kernel", ["native", "parallel", "recurrent"])
def test_every_name_that_runs_anywhere_means_the_same(kernel: str) -> None:
    x = inputs()
    expected, state = mlstm_prefill(*x)
    h, after = mlstm_prefill(*x, kernel=kernel)
    torch.testing.assert_close(mlstm(*x, kernel=kernel), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(h, expected, rtol=1e-9, atol=1e-9)
    scale = torch.exp(after.log_scale - state.log_scale)[..., None]
    torch.testing.assert_close(after.normaliser * scale, state.normaliser, rtol=1e-9, atol=1e-9)


def test_an_unknown_kernel_is_refused_with_the_known_ones() -> None:
    x = inputs()
    _, state = mlstm_prefill(*x)
    for ask in (
        lambda: mlstm(*x, kernel="fast"),
        lambda: mlstm_step(*(part[:, :, 0] for part in x), state, kernel="fast"),
    ):
        with pytest.raises(UnknownNameError, match=f"'fast'.*Known: {', '.join(sorted(KERNELS))}"):
            ask()


def test_a_step_on_a_gpu_refuses_what_it_would_do_wrong() -> None:
    x = [part[:, :, 0].float() for part in inputs()]
    _, state = mlstm_prefill(*(part.float() for part in inputs()))
    narrow = state._replace(memory=state.memory.bfloat16())
    with pytest.raises(ConfigError, match="float32 state without gradients: choose native or auto"):
        mlstm_step(*x, narrow, kernel="triton")
    with pytest.raises(ConfigError, match="float32 state without gradients: choose native or auto"):
        mlstm_step(x[0].requires_grad_(), *x[1:], state, kernel="triton")


def test_float64_on_a_gpu_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"16 or 32 bits, not 16 in torch.float64: choose native or auto"):
        mlstm(*inputs(), kernel="triton")


def test_a_kernel_for_gpus_names_its_extra_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr("seqrec.kernels.gpu.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "seqrec\[triton\]"'):
        mlstm(*(part.float() for part in inputs()), kernel="triton")


def test_a_kernel_for_gpus_is_refused_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError, match="runs on a GPU, not on cpu: choose native or auto"):
        mlstm(*(part.float() for part in inputs()), kernel="triton")


@pytest.mark.skipif(find_spec("mlstm_kernels") is not None, reason="mlstm_kernels is there")
def test_the_other_package_names_its_extra_and_licence_where_it_is_missing() -> None:
    with pytest.raises(MissingExtraError, match=r'not open source.*pip install "seqrec\[nxai\]"'):
        mlstm(*inputs(), kernel="nxai")


@pytest.mark.parametrize("kernel", ["auto", "native", "recurrent"])
def test_a_step_goes_on_where_a_row_ended(kernel: str) -> None:
    x = inputs()
    whole = mlstm(*x)
    _, state = mlstm_prefill(*(part[:, :, :-1] for part in x))
    h, _ = mlstm_step(*(part[:, :, -1] for part in x), state, kernel=kernel)
    torch.testing.assert_close(h, whole[:, :, -1], rtol=1e-9, atol=1e-9)


def test_no_rows_are_no_work() -> None:
    q, gate = torch.zeros(0, 2, 5, 16), torch.zeros(0, 2, 5)
    h, state = mlstm_prefill(q, q, q, gate, gate)
    assert h.shape == q.shape
    assert [part.shape for part in state] == [part.shape for part in initial_state(0, 2, 16, 16, q)]
