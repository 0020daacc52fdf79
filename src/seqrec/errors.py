"""Every error seqrec raises on purpose. A message says what was found and what to do about it.

`exit_code` is what the command line returns for that kind of error.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: Names that one message lists at most.
MOST_LISTED = 20


class SeqrecError(Exception):
    """Base of all errors that seqrec raises on purpose."""

    exit_code = 1


class ConfigError(SeqrecError):
    """A setting is unknown, of the wrong type, or does not fit the others."""

    exit_code = 2


class UnknownNameError(ConfigError):
    """A data set, model, loss, metric or preset of that name does not exist."""


class DataError(SeqrecError):
    """A file or table cannot be used as it is; the message names file, row and column where there is one."""

    exit_code = 3


class DownloadError(DataError):
    """No mirror delivered the file, or what arrived is not the file."""


class RunFolderError(SeqrecError):
    """A run folder is missing, incomplete, or of another format version."""

    exit_code = 4


class CheckpointError(RunFolderError):
    """A checkpoint is damaged or belongs to another model."""


class TrainingError(SeqrecError):
    """Training cannot go on: the loss or a gradient is not finite."""

    exit_code = 5


class ScoreError(SeqrecError):
    """A model gave NaN or infinity where a score belongs; such a score has no rank."""

    exit_code = 5


class UnknownItemsError(SeqrecError):
    """None of the items of a history is in the catalogue."""

    exit_code = 6


class MissingExtraError(SeqrecError, ImportError):
    """An optional package is needed and not installed."""

    exit_code = 7

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'{package} is needed for this and not installed: pip install "seqrec[{extra}]"')


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None when nothing is near."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """An error that names the nearest known name and lists them all, or those that are most like it."""
    names = sorted(known)
    guess = nearest(name, names)
    hint = f" Did you mean {guess!r}?" if guess else ""
    if len(names) > MOST_LISTED:
        like = difflib.get_close_matches(name, names, n=MOST_LISTED // 2, cutoff=0.0)
        return UnknownNameError(f"Unknown {kind} {name!r}.{hint} {len(names)} are known, such as {', '.join(like)}.")
    return UnknownNameError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}.")
