"""A model without gradients, fitted on more and more users while there is time."""

from __future__ import annotations

import time
from typing import Any

from seqrec.data.prepared import PreparedData
from seqrec.experiments.environment import process_peak_mib
from seqrec.experiments.rehearsal.samples import some_users
from seqrec.models.base import Scorer
from seqrec.models.build import build_model

#: Seconds that fits are tried for; what is begun is finished.
BUDGET = 5.0
#: Shares of the users, one after the other.
SHARES = (0.05, 0.1, 0.2, 0.4, 1.0)


def fit_growing(spec: dict[str, Any], data: PreparedData) -> tuple[Scorer, float, float, float]:
    """The scorer fitted on the largest share of users there was time for, that share, and seconds and MiB for all."""
    ends = time.perf_counter() + BUDGET
    shares, seconds, memory = [0.0], [0.0], [process_peak_mib()]
    for share in SHARES:
        if len(shares) > 2 and time.perf_counter() + 2 * seconds[-1] > ends:
            break
        part, began = some_users(data, share), time.perf_counter()
        scorer = build_model(spec, data.sequences.num_items).fit_data(part)
        shares.append(share)
        seconds.append(time.perf_counter() - began)
        memory.append(process_peak_mib())
    more = (1 - shares[-1]) / (shares[-1] - shares[-2])
    whole, peak = (values[-1] + max(0.0, values[-1] - values[-2]) * more for values in (seconds, memory))
    return scorer, shares[-1], whole, peak
