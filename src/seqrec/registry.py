"""Names to components: a table is a plain dict of name -> "module:Attribute", imported when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from seqrec.errors import UnknownNameError, unknown_name


def resolve(kind: str, name: str, table: Mapping[str, str]) -> Any:
    """The component registered as `name`, or the one at `my_package.my_module:Attribute`.

    Raises:
        UnknownNameError: no such name; the message has the nearest one.
    """
    target = name if ":" in name else table.get(name)
    if target is None:
        raise unknown_name(kind, name, table)
    module, _, attribute = target.partition(":")
    if not module or module.startswith("."):
        raise UnknownNameError(f"{kind} {name!r}: write it as my_package.my_module:Attribute.")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise UnknownNameError(f"{kind} {name!r}: there is no module {module!r} to import.") from error
    if not hasattr(found, attribute):
        raise UnknownNameError(f"{kind} {name!r}: {module!r} has no {attribute!r}.")
    return getattr(found, attribute)
