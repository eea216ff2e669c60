"""An engine on a bench: a scripted strategy, a real risk manager, a venue that may lag."""

from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal

from bot4_runtime.domain.candle import Candle, Market
from bot4_runtime.domain.events import (
    CancelRequested,
    JournaledEvent,
    SessionStarted,
)
from bot4_runtime.domain.order import Book, Liquidity, Purpose, Side
from bot4_runtime.domain.regime import Regime
from bot4_runtime.domain.signal import SignalAction, TradingSignal
from bot4_runtime.engine import Command, Engine, EngineParts, Submit
from bot4_runtime.exchange.gate import Gate, GateLimits
from bot4_runtime.exchange.paper import PaperVenue
from bot4_runtime.exchange.paper_model import PaperModel
from bot4_runtime.fees.calculator import FeeCalculator
from bot4_runtime.fees.schedules import binance_schedule
from bot4_runtime.market import MarketMemory
from bot4_runtime.regime.evidence import synthetic_evidence
from bot4_runtime.risk.circuit_breaker import CircuitBreaker
from bot4_runtime.risk.correlation import CorrelationTable
from bot4_runtime.risk.limits import RiskLimits
from bot4_runtime.risk.manager import RiskManager
from bot4_runtime.settings import RiskSection
from bot4_runtime.signals.validator import SignalValidator, TradeCosts, ValidatorSettings
from bot4_runtime.state.trading_state import TradingState

HOUR = 3_600_000
BEGIN = 1_700_000_000_000 // HOUR * HOUR
BOOKS = (Book.VALIDATED, Book.SHADOW)


class Scripted:
    """Says what the test wrote down for a symbol's candle."""

    name = "scripted"
    needs_models = False
    synthetic_rules = ("scripted",)
    late_ns = 0

    def __init__(self) -> None:
        self.script: dict[tuple[str, int], tuple[SignalAction, float | None, str]] = {}
        self.regimes: list[tuple[int, Regime, Regime | None]] = []

    def warm(self, candle: Candle) -> None:
        pass

    def on_candle(self, candle: Candle) -> list[TradingSignal]:
        said = self.script.get((candle.symbol, (candle.open_time_ms - BEGIN) // HOUR))
        if said is None:
            return []
        action, limit, rule = said
        return [
            TradingSignal(
                signal_id=f"{rule}:{candle.symbol}:{candle.open_time_ms}",
                rule_id=rule,
                symbol=candle.symbol,
                action=action,
                side=Side.BUY if action is SignalAction.ENTER else Side.SELL,
                confidence=0.9,
                price=candle.close,
                stop_distance=0.03,
                regime=None,
                volatility=None,
                ts_ns=candle.close_time_ms * 1_000_000 + self.late_ns,
                limit_price=limit,
            )
        ]

    def on_regime(self, estimate, previous, candle) -> list[TradingSignal]:
        number = (candle.open_time_ms - BEGIN) // HOUR
        self.regimes.append((number, estimate.regime, previous))
        return []


class LaggingVenue(PaperVenue):
    """Does not answer cancels while `lag` is set; raises for exits what `refuses` holds."""

    lag = False
    refuses: Sequence[Exception] = ()

    def submit(self, intent, client_id, cash_free):
        if intent.purpose is Purpose.EXIT and intent.book is Book.VALIDATED and self.refuses:
            error, *self.refuses = self.refuses
            raise error
        return super().submit(intent, client_id, cash_free)

    def cancel(self, order, now_ns):
        return [] if self.lag else super().cancel(order, now_ns)


class Bench:
    """An engine, its ledger, and a venue behind a gate.

    Args:
        detector: stands for the models; None runs without.
        judge: makes what stands for the risk manager of the real one.
        limits: of risk.
    """

    def __init__(
        self,
        detector: object | None = None,
        judge: Callable[[RiskManager], RiskManager] = lambda real: real,
        **limits: float,
    ) -> None:
        self.state = TradingState()
        self.events: list[JournaledEvent] = []
        self.emit(
            SessionStarted(
                ts_event_ns=0, epoch=1, mode="paper", source="recorded:x", origin="real",
                strategy="scripted", config_hash="", schema_version=1, warm_from_ms=0, start_ms=BEGIN, quote="USDT",
                initial_cash=Decimal(100_000), books=BOOKS,
            )
        )  # fmt: skip
        changed = {"max_correlation": 1.0, "max_position_pct": 0.1} | limits
        risk: RiskLimits = RiskSection(**changed).limits()
        fees = FeeCalculator(binance_schedule(Market.SPOT))
        self.strategy = Scripted()
        self.venue = LaggingVenue(PaperModel(), fees)
        self.gate = Gate(self.venue, GateLimits(120, Decimal(1_000_000), 0.5), epoch=1)
        self.memory = MarketMemory(
            with_features=detector is not None,
            depth_share=0.01,
            correlations=CorrelationTable(720.0, 72),
        )
        self.parts = EngineParts(
            strategy=self.strategy,
            validator=SignalValidator(ValidatorSettings()),
            risk=judge(RiskManager(risk)),
            breaker=CircuitBreaker(risk),
            venue=self.venue,
            memory=self.memory,
            detector=detector,
            evidence={"scripted": synthetic_evidence("scripted", now_ms=BEGIN, interval="1h")},
            costs=TradeCosts(
                fee_rate_round_trip=2 * fees.rate(fees.venue, "", Liquidity.TAKER),
                slippage_round_trip=0.0002,
            ),
            fees=fees,
            half_spread=0.0001,
            market=Market.SPOT,
            epoch=1,
        )
        self.restart()
        self.at: dict[str, int] = {}

    def restart(self) -> None:
        """Begin another engine on the same state: it has seen no candle yet."""
        self.engine = Engine(self.parts, self, BOOKS)

    def emit(self, event: JournaledEvent) -> None:
        self.state.apply(event)
        self.events.append(event)

    def candle(
        self, symbol: str, close: float = 100.0, *, open_: float = 100.0, volume: float = 1e6
    ) -> None:
        number = self.at.get(symbol, 0)
        self.at[symbol] = number + 1
        candle = Candle(
            symbol=symbol, interval="1h", open_time_ms=BEGIN + number * HOUR, open=open_,
            high=max(open_, close) * 1.001, low=min(open_, close) * 0.999, close=close,
            volume=volume,
        )  # fmt: skip
        self.perform(self.engine.process(candle), candle.close_time_ms * 1_000_000)

    def perform(self, commands: Sequence[Command], now_ns: int = 0) -> None:
        """Do what the engine decided, as a session does once it is durable."""
        for command in commands:
            if isinstance(command, Submit):
                intent = command.intended.intent
                free = self.engine.cash_free(intent.book, without=intent.intent_no)
                answers = self.gate.send(
                    command.approved, command.intended, durable=True, cash_free=free
                )
            else:
                answers = self.gate.cancel(self.state.orders[command.intent_no], now_ns)
            for answer in answers:
                self.emit(answer)

    def calm(self, count: int, *symbols: str) -> None:
        """Candles whose closes wander a little, so that volatility is known."""
        for number in range(count):
            for symbol in symbols or ("AAAUSDT",):
                self.candle(symbol, 100.0 + 0.2 * (number % 3))

    def say(
        self, action: SignalAction, symbol: str = "AAAUSDT", *, limit: float | None = None,
        rule: str = "scripted",
    ) -> None:  # fmt: skip
        """Have the strategy say this at the symbol's next candle."""
        self.strategy.script[symbol, self.at.get(symbol, 0)] = (action, limit, rule)

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    def reasons(self) -> Counter[str]:
        return Counter(event.reason.partition(":")[0] for event in self.of(CancelRequested))


ENTER, EXIT = SignalAction.ENTER, SignalAction.EXIT


def entered(bench: Bench | None = None) -> Bench:
    """A bench that holds AAAUSDT in the validated book, with its stop."""
    bench = bench or Bench()
    bench.calm(80)
    bench.say(ENTER)
    bench.calm(8)
    book = bench.state.books[Book.VALIDATED]
    assert list(book.positions) == ["AAAUSDT"]
    (stop,) = bench.state.all_live_orders(Book.VALIDATED)
    assert stop.intent.purpose is Purpose.STOP
    return bench
