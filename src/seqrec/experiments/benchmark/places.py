"""Where the time of a step goes, by the kernels it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

#: What a kernel (GPU) or an operation (CPU) is for, by what its name contains; the first that fits.
PLACES = (
    ("matrix products", ("nvjet", "gemm", "xmma", "cutlass", "cublas", "::mm", "::addmm", "::bmm", "::baddbmm")),
    ("attention", ("sdpa", "flash", "fmha", "scaled_dot_product")),
    ("loss", ("cross_entropy", "softmax", "nll_loss", "log_sums", "item_gradients", "item_rows")),
    ("cells of the xLSTM", ("mlstm", "slstm", "hidden_states", "chunk_states", "carry", "walk", "gradient")),
    ("cuDNN and recurrent layers", ("cudnn", "lstm", "gru", "elemwise_rnn")),
    ("norms and residuals", ("norm", "gammabeta")),
    ("convolution", ("conv",)),
    ("optimiser, clipping, average", ("multi_tensor", "foreach", "adam", "lerp")),
    ("dropout and random numbers", ("dropout", "bernoulli", "distribution", "rand", "philox")),
    ("looking up and sorting", ("embedding", "index", "sort", "scatter", "gather", "scan")),
    ("copies", ("copy", "memcpy", "memset", "fill", "::cat", "catarray", "::to")),
)
REST = "other elementwise"


def places(run: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Share of the busy time by place, largest first, of what `run` does on the device."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiled:
        run()
        if on_gpu:
            torch.cuda.synchronize()
    spent: Counter[str] = Counter()
    for event in profiled.key_averages():
        if (event.device_type == DeviceType.CUDA) == on_gpu:
            spent[place_of(event.key)] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    total = spent.total() or 1
    return {place: time / total for place, time in spent.most_common()}


def place_of(name: str) -> str:
    """What a kernel or operation of that name is for."""
    lower = name.lower()
    return next((place for place, parts in PLACES if any(part in lower for part in parts)), REST)
