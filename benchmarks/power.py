"""Power and size of the validator, by simulation: what it approves of good rules and of chance.

Every history goes the whole way: `make_records`, the evidence file, and `SignalValidator`.
``python -m benchmarks.power`` runs all; a sample is a test. Seeds are fixed.

- power: 200 histories of three years, true Sharpe 3 a year; at least 85 % approved.
- size: rules without skill, one by one, in families of 20 of which all are tried, as copies of
  one another with noise, and as correlated coins traded in the same weeks; at most 5 % approved.
- size of the p-value by itself, which the Sharpe ratio above 2 hides in the rows before: trades
  of true mean exactly 0 with an adjusted p below 5 %. Independent weeks: 5 %, and 1.4 % for what
  1,000 histories leave to chance. Weeks that depend on one another, of which 156 cannot tell the
  whole: at most 10 %.
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
    Approved,
    LiveEvidence,
    MarketContext,
    Rejected,
    SignalHistory,
    SignalValidator,
    TradeCosts,
    ValidatorSettings,
)

NOW_MS = 20_000 * DAY_MS
DAYS = 1_096
DRAWS = 999
COST = 0.003
INDEPENDENT = 0.064
DEPENDENT = 0.10
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Share:
    """How many of how many were approved, or significant, and how many may or must be."""

    name: str
    counted: int
    judged: int
    least: float
    most: float
    what: str = "approved"

    @property
    def share(self) -> float:
        return self.counted / self.judged

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


def zero_means(count: int) -> Share:
    """Independent trades of mean 0."""
    families = [[_redrawn(drawn(60_000 + seed, 0.0), 70_000 + seed)] for seed in range(count)]
    return significant("mean 0, one rule", families, INDEPENDENT)


def zero_mean_families(count: int, rules: int = 20) -> Share:
    """Families of rules of mean 0: the share of families with any that is significant."""
    families = [
        [
            _redrawn(drawn(80_000 + rules * family + k, 0.0, f"r{k}"), 90_000 + rules * family + k)
            for k in range(rules)
        ]
        for family in range(count)
    ]
    return significant(f"mean 0, best of {rules} rules", families, INDEPENDENT)


def lasting_luck(count: int) -> Share:
    """A week's luck is 0.6 of the week before, and chance."""
    return significant(
        "mean 0, luck lasts (0.6)", [[_lasting(k)] for k in range(count)], DEPENDENT
    )


def overlapping_trades(count: int, held: int = 4) -> Share:
    """Trades of four weeks in a market without drift."""
    families = [[_overlapping(seed, held)] for seed in range(count)]
    return significant(f"mean 0, trades of {held} weeks", families, DEPENDENT)


SCENARIOS: Sequence[tuple[Callable[[int], Share], int]] = (
    (power, 200),
    (single_nulls, 1_000),
    (family_nulls, 50),
    (duplicate_nulls, 100),
    (pooled_nulls, 1_000),
    (zero_means, 1_000),
    (zero_mean_families, 100),
    (lasting_luck, 1_000),
    (overlapping_trades, 1_000),
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
    counted = _count(families, lambda verdict: verdict.code == "APPROVED")
    return Share(name, counted, len(families), least, most)


def significant(name: str, families: Sequence[Sequence[RuleHistory]], most: float) -> Share:
    """Likewise count those of which a rule has an adjusted p below 5 %."""
    counted = _count(families, lambda verdict: verdict.figures.p_value < SIGNIFICANCE)
    return Share(name, counted, len(families), 0.0, most, "p < 5 %")


def _count(
    families: Sequence[Sequence[RuleHistory]], passes: Callable[[Approved | Rejected], bool]
) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return sum(
            any(passes(verdict) for verdict in _verdicts(family, seed, Path(folder)))
            for seed, family in enumerate(families)
        )


def _verdicts(
    family: Sequence[RuleHistory], seed: int, folder: Path
) -> Iterator[Approved | Rejected]:
    provenance = Provenance(Origin.SIMULATED, "1h", ("AUSDT",), NOW_MS, f"h{seed}", "l", seed)
    path = evidence_path(folder / str(seed), "1h")
    write_evidence(path, make_records(family, provenance, draws=DRAWS))
    validator = SignalValidator(ValidatorSettings())
    for rule_id, record in read_evidence(path, f"h{seed}", "l").items():
        yield validator.validate(
            _signal(rule_id),
            LiveEvidence(record),
            SignalHistory(),
            MarketContext(Regime.STRONG_BULL, 0.005, 0.01, NOW_MS * 1_000_000, Origin.SIMULATED),
            TradeCosts(COST, 0.0),
        )


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
    return _traded(week * 7 + rng.integers(0, 7, len(week)), net, held_days=1.0, parts=coins)


def _lasting(seed: int) -> RuleHistory:
    """Every week's luck holds on to 0.6 of the luck of the week before; the mean is 0."""
    rng = _generator(100_000 + seed)
    weeks = DAYS // 7
    luck = rng.normal(0.0, 0.03, weeks + 50)
    for week in range(1, len(luck)):
        luck[week] += 0.6 * luck[week - 1]
    week = np.repeat(np.arange(weeks), rng.poisson(5.0, weeks))
    net = luck[50:][week] + rng.normal(0.0, 0.03, len(week))
    return _traded(week * 7 + rng.integers(0, 7, len(week)), net, held_days=1.0)


def _overlapping(seed: int, held: int) -> RuleHistory:
    """What a coin that follows a market without drift brings in `held` weeks each."""
    rng = _generator(110_000 + seed)
    weeks = DAYS // 7
    market = np.concatenate([[0.0], np.cumsum(rng.normal(0.0, 0.04, weeks + held))])
    week = np.repeat(np.arange(weeks), rng.poisson(1.2, weeks))
    own = rng.normal(0.0, 0.03 * np.sqrt(held), len(week))
    return _traded(week * 7, market[week + held] - market[week] + own, held_days=7.0 * held)


def _traded(day: np.ndarray, net: np.ndarray, held_days: float, parts: int = 1) -> RuleHistory:
    order = np.argsort(day, kind="stable")
    day, net = day[order], net[order]
    return RuleHistory(
        rule_id="r0", entry_ms=(NOW_MS // DAY_MS - DAYS + day) * DAY_MS, net=net,
        holding_days=np.full(len(net), held_days),
        daily=np.bincount(day, weights=net, minlength=DAYS) / parts,
        from_ms=NOW_MS - DAYS * DAY_MS, to_ms=NOW_MS, cost_round_trip=COST,
    )  # fmt: skip


def _redrawn(base: RuleHistory, seed: int) -> RuleHistory:
    """The same trades with a true mean of exactly 0, where a Sharpe ratio of 0 earns 4 %."""
    return _with_net(base, base.rule_id, _generator(seed).normal(0.0, 0.02, len(base.net)))


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
        line = f"{found.name:32}{found.counted:5} of {found.judged:5} {found.what}, "
        line += f"{found.share:7.1%} ({bound})"
        print(line + ("" if found.kept else "  MISSED"), flush=True)
        kept = kept and found.kept
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
