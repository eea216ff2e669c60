"""Short rehearsals of a busy strategy, with the settings of a user."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bot4_runtime.rehearsal.performance import Rehearsal
from bot4_runtime.rehearsal.stages import ContractClient, SpotClient
from bot4_runtime.rehearsal.verdict import Verdict
from bot4_runtime.settings import Settings, load_settings
from bot4_runtime.venue.faults import FaultRule


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        environment={
            "BOT4_MODELS": str(tmp_path / "models"),
            "BOT4_RUNTIME__STRATEGY": "drill",
            "BOT4_RUNTIME__SYMBOLS": '["BTCUSDT", "ETHUSDT"]',
            "BOT4_RISK__MAX_CORRELATION": "1.0",
            "BOT4_RISK__MAX_LOSS_STREAK": "10",
        }
    )


Rehearse = Callable[..., tuple[Verdict, Rehearsal]]


@pytest.fixture
def rehearse(settings: Settings, tmp_path: Path) -> Rehearse:
    """Rehearse some hours with these faults; return the verdict and what it was read from."""

    def run(
        rules: Sequence[FaultRule] = (),
        hours: float = 22,
        seed: int = 1,
        symbols: tuple[str, ...] = (),
        strategy: str = "drill",
        market: str = "spot",
        prepare: Callable[[Rehearsal], None] = lambda made: None,
        folder: Path = tmp_path / "run",
        **options: object,
    ) -> tuple[Verdict, Rehearsal]:
        runtime = settings.runtime.model_copy(
            update={
                "symbols": symbols or settings.runtime.symbols,
                "strategy": strategy,
                "market": market,
            }
        )
        by_rest = SpotClient if market == "spot" else ContractClient
        made = Rehearsal(
            settings.model_copy(update={"runtime": runtime}),
            folder,
            rules=rules,
            seed=seed,
            hours=hours,
            **({"client": by_rest} | options),
        )
        prepare(made)
        return made.perform(), made

    return run
