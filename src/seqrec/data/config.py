"""Which log, which columns of it, and what happens to it before it is split."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from seqrec.config import Config


class DataConfig(Config):
    """A data set by name (`ml-1m`) or path, and how it is prepared. Columns are for tables only."""

    source: str = Field("ml-100k", description="a known data set, a table or a folder of RecBole files")
    user: str | None = Field(None, description="column of the person")
    item: str | None = Field(None, description="column of the item")
    time: str | None = Field(None, description="column of the time")
    value: str | None = Field(None, description="column of the rating")
    time_unit: Literal["auto", "s", "ms", "us", "iso", "order"] = "auto"
    k_core: int = Field(5, ge=0, description="every user and item has at least this many events; 0 keeps all")
