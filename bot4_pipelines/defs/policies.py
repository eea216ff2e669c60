"""When an asset is stale, when a failed download is tried again, and which pools runs share."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import dagster as dg

from bot4_runtime.domain.errors import (
    Bot4Error,
    OutcomeUnknown,
    StoreBusy,
    VenueError,
    VenueRefused,
)

CANDLES_FRESH: Final = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(hours=25), fail_window=timedelta(days=3)
)
"""Candles are asked for again after 24 hours at the latest; three days leave gaps in features."""

MODELS_FRESH: Final = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(days=8), fail_window=timedelta(days=60)
)
"""Models are trained weekly; the runtime refuses them after 90 days, so 60 leave time to act."""

RETRY_DOWNLOAD: Final = dg.RetryPolicy(
    max_retries=3, delay=20, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
"""About 20, 40 and 80 seconds: the venue or the way to it was gone for a moment, or another
process wrote to the store."""

STORE_POOL: Final = "store"
TRAINING_POOL: Final = "training"
"""Pools of dagster.yaml. They are counted by run, not by step: a killed run then holds no slot
for longer than it takes to notice that it is gone. Their limit is that of runs at a time; one
writer at a time is what the tag bot4/writes sees to."""

AT_MOST_2_H: Final = {"dagster/max_runtime": "7200"}
"""Tag of runs of known length; others, a backfill among them, may take dagster.yaml's day."""

FROM_TERMINAL: Final = "bot4/started_by"
"""Tag of a run that somebody waits for at a terminal."""


@contextmanager
def retrying(context: dg.AssetExecutionContext) -> Iterator[None]:
    """Let an asset's retry policy work only where trying again can help.

    Wrong settings, bad files and refusals fail at once; so does everything at a terminal, where
    a person is better told than kept waiting.
    """
    try:
        yield
    except Bot4Error as error:
        passing = isinstance(error, VenueError | StoreBusy) and not isinstance(
            error, VenueRefused | OutcomeUnknown
        )
        if passing and FROM_TERMINAL not in context.run.tags:
            raise
        raise dg.Failure(description=str(error), allow_retries=False) from error
