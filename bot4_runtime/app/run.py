"""A session with what runs beside it: begun, run to its end, and closed in any case."""

import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from bot4_runtime import collector
from bot4_runtime.app.remote import Remote
from bot4_runtime.bridge import RedisBridge
from bot4_runtime.session import Session, SessionResult
from bot4_runtime.sources import CandleSource
from bot4_runtime.state.store import RecoveryReport, StateStore
from bot4_runtime.telemetry import Metrics


class Service(Protocol):
    """What runs beside a session."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> None:
        """End, in bounded time."""
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """A session ready to run.

    Attributes:
        total: candles to come where that is known, for progress bars.
        notices: what the user should know before it starts.
        models: what the manifests say of the models that trade; None when none do.
        bridge: forwards the events to other processes; None when it is off.
        series: writes tables for dashboards; None when it is off.
        notice: hears of promotions; None when Redis is off.
        claim: to the account at the venue; held from before it is asked until after it.
        remote: the venue outside the process; None where orders stay inside.
    """

    session: Session
    store: StateStore
    recovery: RecoveryReport
    source: CandleSource
    metrics: Metrics
    total: int | None
    notices: list[str]
    models: dict[str, Any] | None
    bridge: RedisBridge | None = None
    series: Service | None = None
    notice: Service | None = None
    claim: Service | None = None
    remote: Remote | None = None

    def execute(self, stop: threading.Event) -> SessionResult:
        """Run to the end, or until `stop` is set.

        Whatever fails, the journal is closed, and then each service that began is stopped.
        """
        with ExitStack() as services, self.store:
            for service in (self.bridge, self.series, self.notice, self.claim, self.remote):
                if service is not None:
                    service.start()
                    services.callback(service.stop)
            with collector.seldom():
                return self.session.run(stop, self.recovery)
