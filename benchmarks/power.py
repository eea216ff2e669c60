"""Power and size of the validator, by simulation: what it approves of good rules and of chance.

Every history goes the whole way: `make_records`, the evidence file, and `SignalValidator`.
``python -m benchmarks.power`` runs all; a sample is a test. Seeds are fixed.

- power: 200 histories of three years, true Sharpe 3 a year; at least 85 % approved.
- size: rules without skill, one by one, in families of 20 of which all are tried, as copies of
  one another with noise, and as correlated coins traded in the same weeks; at most 5 % approved.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.order import Side
from bot4_runtime.domain.regime import Regime
from bot4_runtime.domain.signal import SignalAction, TradingSignal
from bot4_runtime.regime.evidence import (
    DAY_MS,
    Provenance,
    RuleHistory,
    evidence_path,
    make_records,
    read_evidence,
    synthetic_history,
    write_evidence,
)
from bot4_runtime.signals.validator import (
    LiveEvidence,
    MarketContext,
    SignalHistory,
    SignalValidator,
    TradeCosts,
    ValidatorSettings,
)

NOW_MS = 20_000 * DAY_MS
DAYS = 1_096
DRAWS = 999
COST = 0.003


@dataclass(frozen=True)
class Share:
    """How many of how many were approved, and how many may or must be."""

    name: str
    approved: int
    judged: int
    least: float
    most: float

    @property
    def share(self) -> float:
        return self.approved / self.judged

    @property
    def kept(self) -> bool:
        return self.least <= self.share <= self.most


def power(count: int) -> Share:
    """Rules of true Sharpe 3, each the only one tried."""
    families = [[drawn(seed, 3.0)] for seed in range(count)]
    return judge("true Sharpe 3, 3 years", families, 0.85, 1.0)


def single_nulls(count: int) -> Share:
    """Rules without skill, each the only one tried."""
    families = [[drawn(10_000 + seed, 0.0)] for seed in range(count)]
    return judge("no skill, one rule", families, 0.0, 0.05)


def family_nulls(count: int, rules: int = 20) -> Share:
    """Families of rules without skill: the share of families with any approval."""
    families = [
        [drawn(20_000 + rules * family + k, 0.0, f"r{k}") for k in range(rules)]
        for family in range(count)
    ]
    return judge(f"no skill, best of {rules} rules", families, 0.0, 0.05)


def duplicate_nulls(count: int, rules: int = 20) -> Share:
    """Families in which every rule is nearly the same: approval of any counts."""
    return judge(
        f"no skill, {rules} near copies", [_copies(k, rules) for k in range(count)], 0.0, 0.05
    )


def pooled_nulls(count: int, coins: int = 9) -> Share:
    """Coins that share their weeks' luck, pooled as if their trades were independent."""
    return judge(
        f"no skill, {coins} correlated coins",
        [[_pooled(k, coins)] for k in range(count)],
        0.0,
        0.05,
    )


SCENARIOS: Sequence[tuple[Callable[[int], Share], int]] = (
    (power, 200),
    (single_nulls, 1_000),
    (family_nulls, 50),
    (duplicate_nulls, 100),
    (pooled_nulls, 1_000),
)


def drawn(seed: int, true_sharpe: float, rule_id: str = "r0") -> RuleHistory:
    """Draw a three-year history of independent trades."""
    return synthetic_history(
        _generator(seed), rule_id=rule_id, to_ms=NOW_MS, true_sharpe=true_sharpe, days=DAYS
    )


def judge(
    name: str, families: Sequence[Sequence[RuleHistory]], least: float, most: float
) -> Share:
    """Write and read the evidence of each family; count those of which a rule is approved."""
    with tempfile.TemporaryDirectory() as folder:
        approved = sum(
            any(_verdicts(family, seed, Path(folder))) for seed, family in enumerate(families)
        )
    return Share(name, approved, len(families), least, most)


def _verdicts(family: Sequence[RuleHistory], seed: int, folder: Path) -> Iterator[bool]:
    provenance = Provenance(Origin.SIMULATED, "1h", ("AUSDT",), NOW_MS, f"h{seed}", "l", seed)
    path = evidence_path(folder / str(seed), "1h")
    write_evidence(path, make_records(family, provenance, draws=DRAWS))
    validator = SignalValidator(ValidatorSettings())
    for rule_id, record in read_evidence(path, f"h{seed}", "l").items():
        verdict = validator.validate(
            _signal(rule_id),
            LiveEvidence(record),
            SignalHistory(),
            MarketContext(Regime.STRONG_BULL, 0.005, 0.01, NOW_MS * 1_000_000),
            TradeCosts(COST, 0.0),
        )
        yield verdict.code == "APPROVED"


def _signal(rule_id: str) -> TradingSignal:
    return TradingSignal(
        signal_id=f"{rule_id}:AUSDT:1", rule_id=rule_id, symbol="AUSDT",
        action=SignalAction.ENTER, side=Side.BUY, confidence=0.9, price=100.0, stop_distance=0.05,
        regime=Regime.STRONG_BULL, volatility=0.005, ts_ns=NOW_MS * 1_000_000,
    )  # fmt: skip


def _copies(seed: int, rules: int) -> list[RuleHistory]:
    base = drawn(30_000 + seed, 0.0)
    rng = _generator(40_000 + seed)
    copies = []
    for k in range(rules):
        net = base.net + rng.normal(0.0, 0.002, len(base.net))
        copies.append(_with_net(base, f"r{k}", net))
    return copies


def _pooled(seed: int, coins: int) -> RuleHistory:
    """Every coin trades in every week it pleases; a week's luck is the same for all."""
    rng = _generator(50_000 + seed)
    weeks = DAYS // 7
    luck = rng.normal(0.0, 0.03, weeks)
    week = np.repeat(np.arange(weeks), rng.poisson(coins * 0.8, weeks))
    net = luck[week] + rng.normal(0.0, 0.02, len(week))
    day = week * 7 + rng.integers(0, 7, len(week))
    order = np.argsort(day, kind="stable")
    day, net = day[order], net[order]
    entry_ms = (NOW_MS // DAY_MS - DAYS + day) * DAY_MS
    return RuleHistory(
        rule_id="r0", entry_ms=entry_ms, net=net, holding_days=np.full(len(net), 1.0),
        daily=np.bincount(day, weights=net, minlength=DAYS) / coins,
        from_ms=NOW_MS - DAYS * DAY_MS, to_ms=NOW_MS, cost_round_trip=COST,
    )  # fmt: skip


def _with_net(base: RuleHistory, rule_id: str, net: np.ndarray) -> RuleHistory:
    day = base.entry_ms // DAY_MS - base.from_ms // DAY_MS
    return RuleHistory(
        rule_id=rule_id, entry_ms=base.entry_ms, net=net, holding_days=base.holding_days,
        daily=0.2 * np.bincount(day, weights=net, minlength=len(base.daily)),
        from_ms=base.from_ms, to_ms=base.to_ms, cost_round_trip=base.cost_round_trip,
    )  # fmt: skip


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def main() -> None:
    """Run every scenario whole; exit 1 when one does not keep its bound."""
    kept = True
    for scenario, count in SCENARIOS:
        found = scenario(count)
        bound = f"at least {found.least:.0%}" if found.least else f"at most {found.most:.0%}"
        line = f"{found.name:32}{found.approved:5} of {found.judged:5} approved, "
        line += f"{found.share:7.1%} ({bound})"
        print(line + ("" if found.kept else "  MISSED"), flush=True)
        kept = kept and found.kept
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
