"""The residual norm against its equations in numpy, row by row, and against the modules of torch it stands for."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from seqrec.errors import ConfigError
from seqrec.kernels.dropout import dropout
from seqrec.kernels.residual_norm import residual_norm

Floats = npt.NDArray[np.float64]
EPS = 1e-3


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def slow(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Floats:
    """The norm of each row, in float64."""
    found = []
    for row in rows.flatten(0, -2).double().numpy():
        if bias is not None:
            row = row - sum(row) / len(row)
        row = row / np.sqrt(sum(row * row) / len(row) + EPS) * weight.double().numpy()
        found.append(row if bias is None else row + bias.double().numpy())
    return np.reshape(found, rows.shape)


@pytest.mark.parametrize("shape", [(4, 3), (2, 5, 16), (1, 1)])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("branched", [False, True])
def test_it_is_what_its_equations_say(shape: tuple[int, ...], centred: bool, branched: bool) -> None:
    x, weight = normal(*shape), normal(shape[-1], seed=1)
    branch, bias = (normal(*shape, seed=2) if branched else None), (normal(shape[-1], seed=3) if centred else None)
    stream, normed = residual_norm(x, branch, weight, bias, eps=EPS)
    summed = x if branch is None else x + branch
    assert torch.equal(stream, summed)
    np.testing.assert_allclose(normed.numpy(), slow(summed, weight, bias), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [None, 0.5])
def test_gradients_are_those_of_differences(bias: float | None) -> None:
    x, branch, weight = normal(3, 6), normal(3, 6, seed=1), normal(6, seed=2)
    given = [x, branch, weight, *([] if bias is None else [torch.full((6,), bias, dtype=torch.float64)])]
    assert torch.autograd.gradcheck(
        lambda *parts: residual_norm(*parts, eps=EPS), [part.requires_grad_() for part in given]
    )


@pytest.mark.parametrize("norm", [nn.RMSNorm(32, eps=EPS), nn.LayerNorm(32, eps=EPS)], ids=["rms", "layer"])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_numbers_and_draws_are_those_of_the_parts(norm: nn.RMSNorm | nn.LayerNorm, share: float) -> None:
    results = []
    for fused in (True, False):
        x, branch = (normal(4, 9, 32, seed=seed, dtype=torch.float32).requires_grad_() for seed in (0, 1))
        torch.manual_seed(0)
        if fused:
            bias = norm.bias if isinstance(norm, nn.LayerNorm) else None
            stream, normed = residual_norm(x, branch, norm.weight, bias, eps=EPS, dropout=share)
        else:
            stream = x + dropout(branch, share)
            normed = norm(stream)
        gradients = torch.autograd.grad((normed.sin() + stream.cos()).sum(), [x, branch, *norm.parameters()])
        results.append([stream, normed, *gradients, torch.rand(1)])
    assert all(torch.equal(found, expected) for found, expected in zip(*results, strict=True))


def test_dropout_leaves_out_its_share_and_scales_the_rest() -> None:
    torch.manual_seed(0)
    x = torch.zeros(2000, 16)
    stream, _ = residual_norm(x, torch.ones_like(x), torch.ones(16), eps=EPS, dropout=0.2)
    assert stream.unique().tolist() == pytest.approx([0, 1 / 0.8], rel=1e-4)
    assert (stream == 0).double().mean().item() == pytest.approx(0.2, abs=5 * (0.2 * 0.8 / stream.numel()) ** 0.5)


def test_the_stream_keeps_its_dtype_and_the_norm_has_that_of_products() -> None:
    x, weight = torch.ones(2, 8), torch.ones(8)
    narrow = x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        stream, normed = residual_norm(x, narrow, weight, eps=EPS)
        assert (stream.dtype, normed.dtype) == (torch.float32, torch.bfloat16)
        assert residual_norm(x, narrow, weight, eps=EPS, dtype=torch.float32)[1].dtype == torch.float32
        assert residual_norm(x.double(), narrow, weight.double(), eps=EPS)[1].dtype == torch.float64
    assert residual_norm(x, narrow, weight, eps=EPS)[1].dtype == torch.float32
    assert residual_norm(narrow, x, weight.bfloat16(), eps=EPS)[0].dtype == torch.bfloat16


def test_without_a_branch_the_stream_is_what_was_given() -> None:
    x = torch.ones(2, 8)
    assert residual_norm(x, None, torch.ones(8), eps=EPS)[0] is x


def test_no_rows_are_no_rows() -> None:
    stream, normed = residual_norm(torch.ones(0, 8), torch.ones(0, 8), torch.ones(8), eps=EPS, dropout=0.5)
    assert stream.shape == normed.shape == (0, 8)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_a_dropout_that_is_no_probability_below_one_is_refused(dropout: float) -> None:
    with pytest.raises(ConfigError, match="from 0 to below 1"):
        residual_norm(torch.ones(2, 8), torch.ones(2, 8), torch.ones(8), eps=EPS, dropout=dropout)


def test_an_unknown_kernel_is_told_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="reference"):
        residual_norm(torch.ones(2, 8), None, torch.ones(8), eps=EPS, kernel="refrence")


@pytest.mark.parametrize(
    ("x", "complaint"),
    [
        (torch.ones(2, 8, dtype=torch.float64), "16 or 32 bits, not 8 in torch.float64"),
        (torch.ones(2, 1025), "widths up to 1024 in 16 or 32 bits, not 1025"),
        (torch.ones(2, 8), "runs on a GPU, not on cpu"),
    ],
)
def test_what_triton_cannot_do_is_refused(x: Tensor, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TRITON_INTERPRET", "0")
    with pytest.raises(ConfigError, match=complaint):
        residual_norm(x, None, torch.ones(x.shape[-1]), eps=EPS, kernel="triton")


def test_traced_it_is_one_graph_of_the_same_numbers() -> None:
    x, branch, weight = (normal(*shape, dtype=torch.float32) for shape in ((3, 8), (3, 8), (8,)))
    traced = torch.compile(residual_norm, backend="eager", fullgraph=True)
    for found, expected in zip(
        traced(x, branch, weight, eps=EPS), residual_norm(x, branch, weight, eps=EPS), strict=True
    ):
        assert torch.equal(found, expected)
