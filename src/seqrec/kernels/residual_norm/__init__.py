"""What stands between two layers of a pre-norm stack, in one pass: dropout on a branch, the sum with it, the norm.

`reference` says what is computed and is the oracle of `triton_*`, which does it on a GPU: there the parts, done one by
one, take longer than the matrix products between them. No mask is stored; the backward pass draws it again.

Shapes: D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seqrec.errors import ConfigError, unknown_name
from seqrec.kernels.gpu import has_triton, product_dtype, require_triton
from seqrec.kernels.residual_norm import reference

__all__ = ["KERNELS", "residual_norm"]

#: Width up to which a program of the Triton kernels holds whole rows.
WIDEST = 1024
#: `auto` is `triton` on a GPU where it takes such tensors, else `reference`, which also runs where torch traces.
KERNELS = ("auto", "triton", "reference")


def residual_norm(
    x: Tensor,
    branch: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    eps: float,
    dropout: float = 0.0,
    dtype: torch.dtype | None = None,
    kernel: str = "auto",
) -> tuple[Tensor, Tensor]:
    """x + dropout(branch), and the norm of that.

    Without a bias the norm is that of Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019; with one it is
    that of Ba et al., "Layer Normalization", 2016. Sums are float32 at least on a GPU.

    Args:
        x: the stream (..., D). branch: (..., D) what a layer adds to it; None: nothing.
        weight, bias: (D,) of the norm.
        eps: added to the mean square before its root is taken.
        dropout: probability, below 1, with which a number of the branch is left out now: 0 where nothing is trained.
            Drawn from torch's generator of the device, also anew at each replay of a CUDA graph.
        dtype: of the norm; None: the one in which matrix products run, which is autocast's where it is on.
        kernel: one of `KERNELS`.

    Returns:
        The stream (..., D) in the dtype of x, x itself where there is no branch; and its norm (..., D) in `dtype`.

    Raises:
        ConfigError: no such kernel, or it cannot do what is asked; no such probability.
        MissingExtraError: Triton is not installed.
    """
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout is {dropout}: a probability from 0 to below 1 is wanted.")
    dtype = dtype or product_dtype(x)
    given = [part for part in (x, branch, weight, bias) if part is not None]
    if not torch.compiler.is_compiling() and _choose(kernel, x, given) == "triton":
        from seqrec.kernels.residual_norm import triton_form

        return triton_form.residual_norm(x, branch, weight, bias, eps, dropout, dtype)
    return reference.residual_norm(x, branch, weight, bias, eps, dropout, dtype)


def _choose(kernel: str, x: Tensor, given: list[Tensor]) -> str:
    """The form that `kernel` means here."""
    if kernel not in KERNELS:
        raise unknown_name("residual norm kernel", kernel, KERNELS)
    fits = x.shape[-1] <= WIDEST and all(part.dtype != torch.float64 for part in given)
    if kernel == "triton":
        _require_triton(x, fits)
    elif kernel == "reference" or not (x.is_cuda and fits and has_triton()):
        return "reference"
    return "triton" if x.numel() > 0 else "reference"


def _require_triton(x: Tensor, fits: bool) -> None:
    if not fits:
        raise ConfigError(
            f"kernel triton takes widths up to {WIDEST} in 16 or 32 bits, not {x.shape[-1]} in {x.dtype}: "
            "choose reference or auto."
        )
    require_triton(x, "reference")
