"""seqrec doctor: is everything here that training and serving need?"""

from __future__ import annotations

import importlib.util
import os
import shutil

import typer

from seqrec.cli import options


def doctor(as_json: options.Json = False) -> None:
    """Versions, GPU, cache and disk; exit code 1 when something needed is missing."""
    import torch

    from seqrec.cli.show import console, print_json
    from seqrec.data.download import cache_folder
    from seqrec.experiments.environment import choose_device, environment

    cache = cache_folder()
    home = next(folder for folder in (cache, *cache.parents) if folder.exists())
    facts = environment(choose_device()) | {
        "bfloat16 on the GPU": torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        "cache": str(cache),
        "cache is writable": os.access(home, os.W_OK),
        "disk free (GiB)": round(shutil.disk_usage(home).free / 2**30, 1),
    }
    for package in ("duckdb", "pyarrow", "tensorboard", "pynvml", "triton"):
        facts[package] = importlib.util.find_spec(package) is not None
    problems = [name for name in ("cache is writable", "duckdb", "pyarrow") if not facts[name]]
    if as_json:
        print_json(facts | {"problems": problems})
    else:
        screen = console()
        for name, value in facts.items():
            screen.print(f"{name:>20}  {value}")
        if not torch.cuda.is_available():
            screen.print("No GPU: training runs on the processor. The README says how to get a CUDA build of torch.")
        screen.print(f"Missing or broken: {', '.join(problems)}" if problems else "Everything needed is here.")
    if problems:
        raise typer.Exit(1)
