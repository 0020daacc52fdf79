"""seqrec estimate: time, memory and disk of a run before it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from seqrec.cli import options

if TYPE_CHECKING:
    from seqrec.experiments.estimate import Estimate


def estimate(
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
    """Take a few real steps in a process of its own, and say what the whole run would cost on this machine."""
    from seqrec.cli.show import console, new_table, print_json
    from seqrec.experiments.estimate import estimate as ask

    columns = options.columns(user, item, time, time_unit)
    changes = options.changes(settings) | {f"data.{name}": value for name, value in columns.items()}
    report = console(stderr=True).print
    found = ask(data, model, preset=preset, settings=changes, device=device, report=report)
    if as_json:
        print_json(found.to_dict())
        return
    table = new_table(title=f"Estimate: {model} on {data}, {found.device}", show_header=False)
    for name, value in (_trained(found) if found.epochs else _fitted(found)).items():
        table.add_row(name, value)
    screen = console()
    screen.print(table)
    screen.print(
        "The whole run is from starting Python to the test results. Not in it: preparing the data, the baselines and "
        "sample users that train shows, and ending Python.",
        soft_wrap=True,
    )
    screen.print(f"Measured in {found.took:.0f} s, on this machine as busy as it is now.")


def _trained(found: Estimate) -> dict[str, str]:
    of = found.rehearsed
    return {
        "parameters": f"{of.parameters:,}",
        "steps per epoch": f"{of.steps:,} of up to {of.batch_size} histories",
        "per epoch": f"{_time(of.epoch_seconds)} of training; {_time(of.evaluation_seconds)} for an evaluation, "
        f"every {found.evaluate_every}",
        "whole run, at most": f"{_time(found.seconds())} for all {found.epochs} epochs; stopping early makes it less",
        **_sizes(found),
        "disk while it trains": f"{_size(found.most_bytes())}, with the checkpoints to resume from",
    }


def _fitted(found: Estimate) -> dict[str, str]:
    share = found.rehearsed.fitted_share or 1.0
    how = "measured" if share == 1 else f"from fits on up to {share:.0%} of the users, as a straight line"
    return {
        "fitting": f"{_time(found.rehearsed.epoch_seconds)}, {how}",
        "whole run": f"{_time(found.seconds())}, with scoring validation and test",
        **_sizes(found),
    }


def _sizes(found: Estimate) -> dict[str, str]:
    of = found.rehearsed
    gpu = {"memory of the GPU": _size(of.gpu_mib * 2**20)} if of.gpu_mib is not None else {}
    return {
        "memory": _size(of.memory_mib * 2**20),
        **gpu,
        "disk, the finished run": _size(found.run_bytes()),
        "disk, the prepared data": f"{_size(found.prepared_bytes)}, shared by all runs",
    }


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{seconds / 60:.1f} min"


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
