"""Where Triton kernels can run, and what is said where they cannot."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from seqrec.errors import ConfigError, MissingExtraError

#: Widths of heads that our Triton kernels take.
WIDTHS = (16, 32, 64, 128)


def fits(*tensors: Tensor) -> bool:
    """Whether heads (..., width) have a width and a precision that the kernels take."""
    return all(x.shape[-1] in WIDTHS and x.dtype != torch.float64 for x in tensors)


def has_triton() -> bool:
    """Whether the package, which comes with PyTorch for GPUs, is there, and the GPU is one that our kernels are for."""
    return find_spec("triton") is not None and is_new_enough()


@cache
def is_new_enough() -> bool:
    """Whether the GPU, if there is one, is of NVIDIA and has products of bfloat16: compute capability 8 and more."""
    if not torch.cuda.is_available():
        return True
    return torch.version.cuda is not None and torch.cuda.get_device_capability() >= (8, 0)


def require_heads(*tensors: Tensor) -> None:
    """Refuse heads (..., width) that the kernels do not take, and what `require_triton` refuses."""
    if not fits(*tensors):
        widths = " and ".join(str(width) for width in dict.fromkeys(part.shape[-1] for part in tensors))
        raise ConfigError(
            f"kernel triton takes heads of width {WIDTHS} in 16 or 32 bits, not {widths} in {tensors[0].dtype}: "
            "choose native or auto."
        )
    require_triton(tensors[0], "native")


def require_triton(x: Tensor, other: str) -> None:
    """Refuse to run a Triton kernel where it cannot run; `other` can be chosen instead.

    Raises:
        ConfigError: x is on no GPU and Triton's interpreter is not on, or the GPU is too old.
        MissingExtraError: Triton is not installed.
    """
    if not x.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise ConfigError(f"kernel triton runs on a GPU, not on {x.device.type}: choose {other} or auto.")
    if not is_new_enough():
        raise ConfigError(f"kernel triton needs an NVIDIA GPU of compute capability 8 or more: choose {other} or auto.")
    if not has_triton():
        raise MissingExtraError("Triton", "triton")


def product_dtype(x: Tensor) -> torch.dtype:
    """That of x @ y: autocast's where it is on, which leaves float64 alone."""
    if x.dtype != torch.float64 and torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype
