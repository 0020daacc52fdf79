"""Linear recurrences along time, one number at a time: h_t = a_t h_{t-1} + b_t. One contract, several forms of the same
arithmetic, and the choice among them.

`linear_recurrence` has one a per channel, real or complex, for all events: the linear recurrent unit. In
`selective_scan` every event chooses its own: the cell of Mamba. `reference` says what is computed and is the oracle of
every other form. `native` is torch with a backward pass of its own; on a GPU the selective scan has a Triton twin.

Shapes: B rows, L positions, D channels, N numbers that a channel remembers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seqrec.errors import ConfigError, unknown_name
from seqrec.kernels.gpu import has_triton, require_triton
from seqrec.kernels.scan import native, reference
from seqrec.kernels.scan.reference import selective_step

__all__ = ["KERNELS", "linear_recurrence", "selective_scan", "selective_step"]

#: `recurrent` is autograd through one event at a time: slow, and the one form that can be traced and exported.
#: `auto` takes it while a model is traced, else `triton` on a GPU where there is one of it, else `native`.
KERNELS = ("auto", "native", "triton", "recurrent")
#: The most numbers of a channel that a program of the Triton kernels keeps in registers.
MOST_NUMBERS = 128


def linear_recurrence(a: Tensor, b: Tensor, *, kernel: str = "auto") -> Tensor:
    """h_t = a h_{t-1} + b_t from h = 0, each channel by itself.

    Args:
        a: (D,), real or complex, of modulus 1 at most where sequences are long.
        b: (B, L, D) in the dtype of `a`: float32, float64, complex64 or complex128.
        kernel: one of `KERNELS`; there is no Triton twin of this one.

    Returns:
        h (B, L, D). Position t depends on positions up to t only.

    Raises:
        ConfigError: `kernel` is "triton".
        UnknownNameError: `kernel` is none of `KERNELS`.
    """
    form = _choose(kernel, False)
    if form == "triton":
        raise ConfigError("The linear recurrence has no kernel triton: choose native or auto.")
    return (reference if form == "recurrent" else native).linear_recurrence(a, b)


def selective_scan(
    x: Tensor,
    step: Tensor,
    rate: Tensor,
    write: Tensor,
    read: Tensor,
    lengths: Tensor | None = None,
    *,
    kernel: str = "auto",
) -> tuple[Tensor, Tensor]:
    """y_t = h_t read_t, where h_t = exp(step_t rate) h_{t-1} + step_t x_t write_t, from h = 0.

    Algorithm 2 of Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, with the
    names delta, A, B and C for `step`, `rate`, `write` and `read`.

    Args:
        x: (B, L, D), what channels are told.
        step: (B, L, D), how far each event moves a channel, 0 (nothing happens) or more.
        rate: (D, N), negative: how fast what is remembered fades.
        write: (B, L, N), where to. read: (B, L, N), where from.
        lengths: (B,) valid positions per row, 0 to L; None for L. Outputs beyond them mean nothing.
        kernel: one of `KERNELS`.

    Returns:
        y (B, L, D) in the dtype of `x`; and the state (B, D, N) after the last event of each row, in float32 (float64
        if `x` is), through which no gradient goes. Numbers are of that dtype inside, whatever the inputs are.

    Raises:
        ConfigError: `kernel` is "triton" and cannot run here, or not with such numbers.
        UnknownNameError: `kernel` is none of `KERNELS`.
        MissingExtraError: `kernel` is "triton" and there is no Triton.
    """
    fits = x.dtype != torch.float64 and rate.shape[1] <= MOST_NUMBERS
    form = _choose(kernel, x.is_cuda and fits and x.numel() > 0 and has_triton())
    if lengths is not None:
        inside_BL = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        step = step * inside_BL[..., None]  # a step of 0 leaves the state as it is
    if form == "triton":
        return _triton(x, step, rate, write, read, fits)
    arithmetic = reference.selective_scan if form == "recurrent" else native.selective_scan
    dtype = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        y, state = arithmetic(*(part.to(dtype) for part in (x, step, rate, write, read)))
    return y.to(x.dtype), state.detach()


def _choose(kernel: str, triton_takes_it: bool) -> str:
    if kernel not in KERNELS:
        raise unknown_name("scan kernel", kernel, KERNELS)
    if kernel != "auto":
        return kernel
    if torch.compiler.is_compiling():
        return "recurrent"
    return "triton" if triton_takes_it else "native"


def _triton(x: Tensor, step: Tensor, rate: Tensor, write: Tensor, read: Tensor, fits: bool) -> tuple[Tensor, Tensor]:
    if not fits:
        raise ConfigError(
            f"kernel triton takes 16 or 32 bits and up to {MOST_NUMBERS} numbers of a channel, not {rate.shape[1]} in "
            f"{x.dtype}: choose native or auto."
        )
    require_triton(x, "native")
    from seqrec.kernels.scan import triton_form  # slow to import, and not everybody has Triton

    return triton_form.selective_scan(x, step, rate, write, read)
