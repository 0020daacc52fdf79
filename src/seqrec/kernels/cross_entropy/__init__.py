"""Cross-entropy of scores h . w over many items, and its gradients, without the matrix of scores.

`reference` says what is computed and is the oracle of the other forms. `native` is torch, some positions at a time;
`triton_*` the same on a GPU, where nothing waits for the device, so that it can be captured in a graph.

Shapes: T positions, N items, D width, K candidates.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from seqrec.errors import ConfigError, unknown_name
from seqrec.kernels.cross_entropy import native, reference
from seqrec.kernels.cross_entropy.problem import Options, Problem
from seqrec.kernels.gpu import has_triton, product_dtype, require_triton

__all__ = ["KERNELS", "linear_cross_entropy", "shared_cross_entropy"]

#: Widths up to which the Triton kernels hold a row of gradients in registers, by bytes per number.
WIDEST = {2: 256, 4: 128}
#: `auto` is `triton` on a GPU where it takes such a width and precision, else `native`. Traced or exported, the
#: reference runs instead.
KERNELS = ("auto", "native", "triton", "reference")


def linear_cross_entropy(
    h: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -1,
    cosine: bool = False,
    reduction: Literal["mean", "none"] = "mean",
    kernel: str = "auto",
) -> Tensor:
    """Mean of -log softmax(h . w + bias) at the targets, as `F.cross_entropy` has it.

    Where no position counts the loss is 0, with zero gradients, and not NaN. On a GPU products are of the type of h,
    or of autocast's; on a CPU of float32 at least. Sums are float32 at least everywhere.

    Args:
        h: hidden states (T, D).
        weight: item vectors (N, D). bias: (N,) added to the scores.
        targets: (T,) int64 columns 0 to N - 1, or `ignore_index` where there is none. On a GPU any other makes the
            loss NaN; elsewhere it is an error.
        label_smoothing: share of the target spread over all items.
        cosine: compare with w / |w|. Where h is to be normalised too, do it before: that is cheap.
        reduction: `none` gives the loss of each position (T,), 0 where there is no target. What is passed back to it
            differs from position to position, so that item gradients wait for it: products are computed once more.
        kernel: one of `KERNELS`.

    Returns:
        A scalar, or (T,), in float32, or float64 if h is.

    Raises:
        ConfigError: no such kernel, or it cannot do what is asked.
        MissingExtraError: Triton is not installed.
    """
    problem = Problem(h, weight, bias, targets)
    return _run(problem, Options(label_smoothing, ignore_index, cosine, _dtype(h), reduction == "none"), kernel)


def shared_cross_entropy(
    h: Tensor,
    own: Tensor,
    candidates: Tensor,
    targets: Tensor,
    ids: Tensor,
    *,
    own_bias: Tensor | None = None,
    bias: Tensor | None = None,
    ignore_index: int = -1,
    kernel: str = "auto",
) -> Tensor:
    """As `linear_cross_entropy`, among each position's target and K candidates that all positions share.

    A candidate that is a position's target is left out there. Bengio & Senecal, "Adaptive importance sampling to
    accelerate training of a neural probabilistic language model", 2008: where candidates are K independent draws, each
    with probability q, `bias` = -log(K q) makes the sum of exponentials an unbiased estimate of the catalogue's.

    Args:
        h: hidden states (T, D).
        own: vectors of the targets (T, D). own_bias: (T,).
        candidates: (K, D). bias: (K,) added to their scores.
        targets: (T,) int64 ids, or `ignore_index`. ids: (K,) int64 of the candidates.
    """
    problem = Problem(h, candidates, bias, targets, own, own_bias, ids)
    return _run(problem, Options(0.0, ignore_index, False, _dtype(h)), kernel)


def _dtype(h: Tensor) -> torch.dtype:
    """The precision of the products."""
    if h.device.type == "cpu":
        return torch.promote_types(h.dtype, torch.float32)
    return product_dtype(h)


def _run(x: Problem, options: Options, kernel: str) -> Tensor:
    if kernel not in KERNELS:
        raise unknown_name("cross-entropy kernel", kernel, KERNELS)
    if kernel == "reference" or torch.compiler.is_compiling():
        return reference.cross_entropy(x, options)
    fits = x.weight.shape[1] <= WIDEST.get(options.dtype.itemsize, 0)
    if kernel == "triton":
        _require_triton(x, options, fits)
    if x.h.numel() > 0 and (kernel == "triton" or (kernel == "auto" and x.h.is_cuda and fits and has_triton())):
        from seqrec.kernels.cross_entropy import triton_form

        return triton_form.cross_entropy(x, options)
    return native.cross_entropy(x, options)


def _require_triton(x: Problem, options: Options, fits: bool) -> None:
    if not fits:
        raise ConfigError(
            f"kernel triton takes widths up to {WIDEST[2]} in 16 bits and {WIDEST[4]} in 32, not {x.weight.shape[1]} "
            f"in {options.dtype}: choose native or auto."
        )
    require_triton(x.h, "native")
