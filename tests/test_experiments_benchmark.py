"""What `seqrec bench` counts and tells."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import seqrec as package
from commands import seqrec
from seqrec.data.batches import Batch
from seqrec.errors import ConfigError
from seqrec.experiments.benchmark.measure import benchmark
from seqrec.experiments.benchmark.places import REST, place_of, places
from seqrec.experiments.benchmark.products import flops, products_of
from seqrec.experiments.config import RunConfig
from seqrec.models.sasrec import SASRec, SASRecConfig


def test_every_product_of_a_step_is_counted() -> None:
    D, F, N, B, L = 8, 24, 50, 3, 5
    config = SASRecConfig(embedding_dim=D, num_blocks=2, num_heads=2, feedforward_factor=F / D, max_length=L + 1)
    model = SASRec(config, N).train()
    found = products_of(model, Batch.of([[1 + row] * (L + 1) for row in range(B)]), bfloat16=False, scored=N)
    T = B * L
    layers = [(D, 3 * D), (D, D), (D, F), (F, D)]
    expected: Counter[Any] = Counter()
    for _ in range(config.num_blocks):
        for k, n in layers:
            expected[T, k, n] += 1  # forward
            expected[T, n, k] += 1  # gradient of the input
            expected[n, T, k] += 1  # gradient of the weight
    for product in ((T, D, N), (T, N, D), (N, T, D)):
        expected[product] += 1
    # A weight's gradient may be computed as its transpose.
    assert (
        Counter({tuple(sorted(p)): 0 for p in found}).keys() == Counter({tuple(sorted(p)): 0 for p in expected}).keys()
    )
    assert flops(found) == flops(expected)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("nvjet_sm90_tst_128x256_64x4_2x1_v_bz_coopA_NNN", "matrix products"),
        ("aten::addmm", "matrix products"),
        ("aten::_log_softmax_backward_data", "loss"),
        ("finish_item_gradients", "loss"),
        ("gradients", "cells of the xLSTM"),
        ("residual_norm_backward", "norms and residuals"),
        (
            "void at::native::(anonymous namespace)::fused_dropout_kernel_vec<c10::BFloat16>",
            "dropout and random numbers",
        ),
        ("aten::copy_", "copies"),
        ("aten::silu", REST),
    ],
)
def test_kernels_have_their_place(name: str, place: str) -> None:
    assert place_of(name) == place


def test_shares_add_up_and_the_work_that_was_done_is_among_them() -> None:
    a = torch.randn(400, 400)
    found = places(lambda: [a @ a for _ in range(20)], torch.device("cpu"))
    assert sum(found.values()) == pytest.approx(1)
    assert next(iter(found)) == "matrix products"


def test_a_benchmark_of_a_small_model(small_log: Path) -> None:
    data = package.load_data(small_log, user="uid", item="iid", time="ts")
    settings = {"model": {"name": "sasrec", "embedding_dim": 16, "max_length": 8}, "training": {"batch_size": 16}}
    found = benchmark(RunConfig.from_dict(settings), data, "cpu")
    assert found.steps == -(-int((data.train.lengths >= 2).sum()) // 16)
    assert found.tokens_per_second * found.epoch_seconds == pytest.approx(
        int((data.train.lengths.clip(max=9) - 1).clip(min=0).sum()), rel=1e-6
    )
    assert 0 < found.utilisation < 1
    assert found.step_seconds > 0 < found.products_seconds
    assert found.peak_memory_mib > 50
    assert sum(found.places.values()) == pytest.approx(1)


def test_a_loss_of_few_items_is_counted_with_these(small_log: Path) -> None:
    data = package.load_data(small_log, user="uid", item="iid", time="ts")
    model = {"name": "sasrec", "embedding_dim": 16, "max_length": 8}
    few, many = (
        benchmark(RunConfig.from_dict({"model": model, "loss": loss}), data, "cpu")
        for loss in ({"name": "sampled_softmax", "num_negatives": 1}, {"name": "softmax"})
    )
    assert few.step == many.step
    positions = few.step[0] * few.step[1]
    expected = 6 * positions * 16 * (data.sequences.num_items - 1) / 1e12
    assert many.tera_flops - few.tera_flops == pytest.approx(expected)


def test_a_fitted_model_is_sent_elsewhere(small_log: Path) -> None:
    data = package.load_data(small_log, user="uid", item="iid", time="ts")
    with pytest.raises(ConfigError, match="seqrec estimate"):
        benchmark(RunConfig.from_dict({"model": {"name": "markov"}}), data, "cpu")


def test_the_command_prints_both_tables_and_json(small_log: Path, tmp_path: Path) -> None:
    arguments = ["bench", small_log, "sasrec", "--user", "uid", "--item", "iid", "--time", "ts"]
    arguments += ["--set", "model.embedding_dim=16", "--device", "cpu"]
    shown = seqrec(*arguments, cwd=tmp_path)
    assert shown.code == 0
    assert "its matrix products alone" in shown.out
    assert "matrix products" in shown.out.partition("Where the time of a step goes")[2]
    found = json.loads(seqrec(*arguments, "--json", cwd=tmp_path).out)
    assert found["step_seconds"] > 0
    assert sum(found["places"].values()) == pytest.approx(1)
