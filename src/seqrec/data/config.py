"""Which log, which columns of it, what happens to it before it is split, and how it is split."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from seqrec.data.features import FeatureConfig

#: A share of all events, or an ISO date.
Moment = Annotated[float, Field(gt=0, lt=1)] | str


class DataConfig(FeatureConfig):
    """A data set by name (`ml-1m`) or path, and how it is prepared. Columns are for tables only."""

    source: str = Field("ml-100k", description="a known data set, a table, a folder of Parquet or RecBole files")
    user: str | None = Field(None, description="column of the person")
    item: str | None = Field(None, description="column of the item")
    time: str | None = Field(None, description="column of the time")
    value: str | None = Field(None, description="column of the rating")
    time_unit: Literal["auto", "s", "ms", "us", "iso", "order"] = "auto"

    min_value: float | None = Field(None, description="events with a rating of at least this; those without one go")
    since: str | None = Field(None, description="events from this ISO date on")
    until: str | None = Field(None, description="events before this ISO date")
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
        return self
