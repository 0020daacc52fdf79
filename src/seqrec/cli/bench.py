"""seqrec bench: how fast a model trains here, how much of the machine that uses, and where the time goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from seqrec.cli import options

if TYPE_CHECKING:
    from seqrec.experiments.benchmark.measure import Benchmark


def bench(
    data: Annotated[str, typer.Argument(help="A data set or the path of a table, as for train.")] = "ml-100k",
    model: Annotated[str, typer.Argument(help="A model's name, or my_package.my_module:MyModel.")] = "xlstm",
    preset: options.Preset = None,
    settings: options.Set = None,
    device: options.Device = "auto",
    user: options.User = None,
    item: options.Item = None,
    time: options.Time = None,
    time_unit: options.TimeUnit = None,
    as_json: options.Json = False,
) -> None:
    """Train a few steps of every shape of batch, and throw the weights away."""
    from seqrec.cli.show import console, new_table, print_json
    from seqrec.experiments.benchmark.measure import benchmark
    from seqrec.experiments.door import prepare_run

    columns = options.columns(user, item, time, time_unit)
    changes = options.changes(settings) | {f"data.{name}": value for name, value in columns.items()}
    config, prepared = prepare_run(data, model, preset, changes, console(stderr=True).print)
    found = benchmark(config, prepared, device)
    if as_json:
        print_json(found.to_dict())
        return
    screen = console()
    table = new_table(title=f"Training {model} on {prepared.name}, {found.device}", show_header=False)
    for name, value in _figures(found).items():
        table.add_row(name, value)
    where = new_table("of a step", "goes to", title="Where the time of a step goes")
    for place, share in found.places.items():
        where.add_row(f"{share:.1%}", place)
    screen.print(table, where)
    screen.print(
        "Counted are the matrix products of layers and scores, not attention, cells and elementwise work. "
        "Setting up is shorter where kernels lie compiled in their cache. On a GPU the second table is of steps that "
        "are not recorded as graphs: the same kernels, told apart.",
        soft_wrap=True,
    )


def _figures(found: Benchmark) -> dict[str, str]:
    rows, events = found.step
    return {
        "parameters": f"{found.parameters:,}",
        "an epoch": f"{found.epoch_seconds:.3g} s for {found.steps:,} steps, evaluation not counted",
        "tokens": f"{found.tokens_per_second:,.0f} a second, padding not counted",
        "setting up": f"{found.set_up_seconds:.1f} s, once",
        "peak memory": f"{found.peak_memory_mib:,.0f} MiB",
        f"a step of {rows} x {events}": f"{found.step_seconds * 1000:.2f} ms",
        "its matrix products alone": f"{found.products_seconds * 1000:.2f} ms, "
        f"so the step is {found.step_seconds / found.products_seconds:.2f} times their sum",
        "its operations": f"{found.tera_flops:.3g} TFLOP, {found.utilisation:.0%} of what the device does at best",
    }
