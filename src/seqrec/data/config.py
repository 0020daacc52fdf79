"""Which log, which columns of it, what happens to it before it is split, and how it is split."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from seqrec.data.features import FeatureConfig


def milliseconds(date: str) -> int:
    """An ISO date or time, UTC where it names no zone, in milliseconds since 1970.

    Raises:
        ValueError: it is not one.
    """
    try:
        moment = datetime.fromisoformat(date)
    except ValueError:
        raise ValueError("not a date: write it as 2018-01-31 or 2018-01-31T12:00") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _date(date: str) -> str:
    milliseconds(date)
    return date


def _share_or_date(value: object) -> object:
    try:
        share = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        if isinstance(value, str):
            return _date(value)
        raise ValueError("a share of all events, or a date such as 2018-01-31") from None
    if not 0 < share < 1:
        raise ValueError("a share of all events lies between 0 and 1")
    return share


Date = Annotated[str, AfterValidator(_date)]
#: A share of all events, or an ISO date.
Moment = Annotated[float | str, BeforeValidator(_share_or_date)]


class DataConfig(FeatureConfig):
    """A data set by name (`ml-1m`) or path, and how it is prepared. Columns are for tables only."""

    source: str = Field("ml-100k", description="a known data set, a table, a folder of Parquet or RecBole files")
    user: str | None = Field(None, description="column of the person")
    item: str | None = Field(None, description="column of the item")
    time: str | None = Field(None, description="column of the time")
    value: str | None = Field(None, description="column of the rating")
    time_unit: Literal["auto", "s", "ms", "us", "iso", "order"] = "auto"

    min_value: float | None = Field(None, description="events with a rating of at least this; those without one go")
    since: Date | None = Field(None, description="events from this ISO date on")
    until: Date | None = Field(None, description="events before this ISO date")
    revisits: bool | None = Field(
        None, description="whether people come back to the same item, as with music; None: as the data set knows"
    )
    repeats: Literal["auto", "keep", "first"] = Field(
        "auto", description="of events with the same user and item; auto: the first for ratings, all otherwise"
    )
    max_per_day: int | None = Field(None, ge=1, description="whoever does more on any day (UTC) is a program, and goes")
    session_gap: float | None = Field(None, gt=0, description="minutes without an event that end a session")
    min_session: int | None = Field(None, ge=1, description="sessions with fewer events go")
    histories: Literal["people", "sessions"] = Field("people", description="what a sequence is")
    k_core: int = Field(5, ge=0, description="every user and item has at least this many events; 0 keeps all")
    k_core_once: bool = Field(False, description="one pass, after which some are below k_core again")

    split: Literal["leave_one_out", "temporal", "ratio", "last_session", "new_users"] = "leave_one_out"
    targets: Literal["last", "successive", "all"] | None = Field(
        None, description="what is asked of a held-out part; by default successive, of new users last"
    )
    validation_from: Moment = Field(0.8, description="temporal: a share of all events, or an ISO date")
    test_from: Moment = Field(0.9, description="temporal: a share of all events, or an ISO date")
    holdout: tuple[float, float] = Field(
        (0.1, 0.1), description="validation and test share: of each history (ratio), of all users (new_users)"
    )

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.split == "leave_one_out" and self.targets not in (None, "last"):
            raise ValueError("leave_one_out asks for the last event; targets are for the other splits")
        if min(self.holdout) <= 0 or sum(self.holdout) >= 1:
            raise ValueError("holdout is two shares above 0 that leave something to train on")
        shares = [at for at in (self.validation_from, self.test_from) if isinstance(at, float)]
        if len(shares) == 2 and shares[0] >= shares[1]:
            raise ValueError("validation_from comes before test_from")
        if self.session_gap is None and (self.histories == "sessions" or self.min_session is not None):
            raise ValueError("sessions need session_gap, in minutes")
        if self.histories == "sessions" and self.split == "last_session":
            raise ValueError("last_session needs people as histories: a session has no sessions in it")
        if self.since and self.until and milliseconds(self.since) >= milliseconds(self.until):
            raise ValueError("since comes before until")
        return self

    @property
    def kept(self) -> str:
        """What is kept of the log, as protocols say it: `5-core`, `no k-core, ratings from 4`."""
        core = f"{self.k_core}-core" if self.k_core > 1 else "no k-core"
        core += " in one pass" if self.k_core_once else ""
        if self.histories == "sessions":
            core = (
                f"items {core}, sessions of at least {self.min_session or 1} (pauses of {self.session_gap:g} minutes)"
            )
        words = {
            "min_value": f"ratings from {self.min_value}",
            "since": f"since {self.since}",
            "until": f"until {self.until}",
            "max_per_day": f"people with at most {self.max_per_day} events a day",
        }
        return ", ".join([core, *(text for name, text in words.items() if getattr(self, name) is not None)])
