"""The residual norm in torch: what is computed, and on a CPU how."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.kernels.dropout import dropout as drop


def residual_norm(
    x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float, dropout: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As `seqrec.kernels.residual_norm.residual_norm`."""
    if branch is not None:
        x = (x + drop(branch, dropout)).to(x.dtype)
    if bias is None:
        normed = F.rms_norm(x, weight.shape, weight, eps)
    else:
        normed = F.layer_norm(x, weight.shape, weight, bias, eps)
    return x, normed.to(dtype)
