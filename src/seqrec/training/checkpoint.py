"""One safetensors file holds tensors and, in its header, JSON and a checksum: written whole, loaded without pickle."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from seqrec.errors import CheckpointError
from seqrec.files import atomic_file


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None) -> None:
    """Write tensors and JSON facts, atomically.

    Raises:
        DiskError: the disk is full or the folder may not be written.
    """
    kept = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    text = json.dumps(dict(facts or {}))
    header = {"facts": text, "sha256": _digest(kept, text)}
    with atomic_file(path) as temporary:
        try:
            save_file(kept, temporary, metadata=header)
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), str(error)) from error


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a checkpoint.

    Raises:
        CheckpointError: the file is missing, cut short, or its bytes are not those that were written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if header["sha256"] != _digest(tensors, header["facts"]):
            raise ValueError("the checksum does not match")
        facts = json.loads(header["facts"])
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint {path}. Did training reach its first evaluation?") from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Train again, or restore the file from a copy.") from error
    return {name: tensor.to(device) for name, tensor in tensors.items()}, facts


def load_weights(model: Any, path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Put a checkpoint's weights into `model` and return its facts.

    Raises:
        CheckpointError: the file is damaged or belongs to another model.
    """
    tensors, facts = load_checkpoint(path, device)
    try:
        model.load_state_dict(tensors)
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(f"{path} does not fit this model: {error}") from error
    return facts


def _digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    """Of everything that is loaded: names, dtypes and shapes are in the header, which may be damaged as well."""
    digest = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
