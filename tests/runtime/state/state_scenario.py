"""Seeded sessions of one account, as an engine with a paper venue would journal them.

A step is one candle: its main batch ([CandleClosed, fills, decisions, intents]) and the
batch of the intents' outcomes. Everything a state can meet occurs: partial fills, three fee
assets, rejections, cancels, unknown outcomes, orders never placed, dust, both books.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from random import Random

from bot4_runtime.domain.account import Difference, DifferenceKind
from bot4_runtime.domain.candle import Candle, Market, Origin
from bot4_runtime.domain.events import (
    SCHEMA_VERSION,
    BreakerChanged,
    CancelRequested,
    CandleClosed,
    FundingPaid,
    GapSeen,
    InstrumentDefined,
    JournaledEvent,
    ModelPromoted,
    ModelTrial,
    OperatorCommand,
    OrderAccepted,
    OrderClosed,
    OrderFilled,
    OrderIntended,
    OrderOutcomeUnknown,
    OrderRejected,
    OverrideSet,
    ProtectionAlarm,
    ProtectionPlanned,
    ProtectionSettled,
    Reconciled,
    RegimeNamed,
    RiskDecided,
    SessionEnded,
    SessionStarted,
    SignalDecided,
)
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import (
    Book,
    Fill,
    Liquidity,
    Order,
    OrderIntent,
    OrderStatus,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
    payload_hash,
)
from bot4_runtime.domain.portfolio import BreakerPhase, BreakerState
from bot4_runtime.domain.regime import EstimateSource, Regime, RegimeEstimate
from bot4_runtime.domain.signal import SignalAction, TradingSignal
from bot4_runtime.state.trading_state import TradingState

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS
SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
FILLABLE = {OrderStatus.ACCEPTED, OrderStatus.PARTIALLY_FILLED, OrderStatus.UNKNOWN}


def session(epoch: int) -> SessionStarted:
    return SessionStarted(
        origin=Origin.REAL,
        ts_event_ns=START_MS * 1_000_000,
        epoch=epoch,
        mode="paper",
        source="recorded",
        strategy="drill",
        config_hash="0" * 64,
        schema_version=SCHEMA_VERSION,
        warm_from_ms=START_MS,
        start_ms=START_MS,
        quote="USDT",
        initial_cash=Decimal(10_000),
        books=(Book.VALIDATED, Book.SHADOW),
    )


def candle(symbol: str, open_time_ms: int, close: float) -> CandleClosed:
    return CandleClosed(
        ts_event_ns=(open_time_ms + HOUR_MS) * 1_000_000,
        candle=Candle(
            symbol=symbol,
            interval="1h",
            open_time_ms=open_time_ms,
            open=close,
            high=close * 1.01,
            low=close * 0.99,
            close=close,
            volume=1_000.0,
        ),
    )


def intended(
    number: int,
    *,
    book: Book = Book.VALIDATED,
    symbol: str = "BTCUSDT",
    side: Side = Side.BUY,
    quantity: str = "1",
    purpose: Purpose = Purpose.ENTRY,
    order_type: OrderType = OrderType.MARKET,
    price: Decimal = Decimal(100),
    ts_ns: int = 0,
) -> OrderIntended:
    intent = OrderIntent(
        intent_no=number,
        book=book,
        purpose=purpose,
        symbol=symbol,
        side=side,
        order_type=order_type,
        quantity=Decimal(quantity),
        price=price if order_type is OrderType.LIMIT else None,
        stop_price=price if order_type is OrderType.STOP_MARKET else None,
        time_in_force=TimeInForce.GTC,
        reduce_only=purpose is not Purpose.ENTRY,
        reference_price=price,
        stop_loss=price * Decimal("0.9") if purpose is Purpose.ENTRY else None,
        expires_after=0,
        signal_id=f"rule:{symbol}:{number}",
        rule_id="rule",
        ts_ns=ts_ns,
    )
    return OrderIntended(
        ts_event_ns=ts_ns,
        intent=intent,
        client_id=f"b4-{number}",
        payload_hash=payload_hash(intent),
    )


def fill(
    number: int,
    trade: str,
    quantity: str,
    price: str,
    *,
    book: Book = Book.VALIDATED,
    symbol: str = "BTCUSDT",
    side: Side = Side.BUY,
    fee: str = "0",
    fee_asset: str = "USDT",
    ts_ns: int = 0,
) -> OrderFilled:
    return OrderFilled(
        ts_event_ns=ts_ns,
        fill=Fill(
            trade_id=trade,
            intent_no=number,
            book=book,
            symbol=symbol,
            side=side,
            price=Decimal(price),
            quantity=Decimal(quantity),
            fee=Decimal(fee),
            fee_asset=fee_asset,
            liquidity=Liquidity.TAKER,
            ts_event_ns=ts_ns,
        ),
    )


@dataclass
class Step:
    main: list[JournaledEvent] = field(default_factory=list)
    outcomes: list[JournaledEvent] = field(default_factory=list)


class Scenario:
    """A whole session: `first` opens it, `steps` follow; `state` is their fold.

    With `every_hash`, `hashes[n]` is the state's after n steps and `unanswered_hashes[n]` the
    one between the two batches of step n; else only the last hash is taken.
    """

    def __init__(self, seed: int, steps: int, *, every_hash: bool = False) -> None:
        self.every_hash = every_hash
        self.random = Random(seed)
        self.state = TradingState()
        self.prices = {symbol: 10.0 ** (4 - i) for i, symbol in enumerate(SYMBOLS)}
        self.first: list[JournaledEvent] = [session(1)]
        self.first += [
            InstrumentDefined(
                ts_event_ns=0, instrument=Instrument.assume(symbol, Market.SPOT, price)
            )
            for symbol, price in self.prices.items()
        ]
        for event in self.first:
            self.state.apply(event)
        self.hashes = [self.state.state_hash()]
        self.unanswered_hashes: list[str] = []
        self.steps = [self._step(number) for number in range(steps)]
        self.hashes.append(self.state.state_hash())

    def batches(self) -> list[list[JournaledEvent]]:
        """The session as a store gets it."""
        batches = [self.first]
        for step in self.steps:
            batches += [step.main, step.outcomes] if step.outcomes else [step.main]
        return batches

    def _step(self, number: int) -> Step:
        step = Step()
        rng = self.random
        symbol = SYMBOLS[number % len(SYMBOLS)]
        self.prices[symbol] *= 1 + rng.gauss(0, 0.03)
        open_time_ms = START_MS + number // len(SYMBOLS) * HOUR_MS
        now_ns = (open_time_ms + HOUR_MS) * 1_000_000

        def say(event: JournaledEvent) -> None:
            step.main.append(event)
            self.state.apply(event)

        before = self.state.live_orders(symbol)
        say(candle(symbol, open_time_ms, self.prices[symbol]))
        for order in before:
            self._meet(order, now_ns, say)
        self._decide(symbol, number, now_ns, say)
        if self.every_hash:
            self.unanswered_hashes.append(self.state.state_hash())
        for order in self.state.unanswered():
            event = self._answer(order, now_ns)
            step.outcomes.append(event)
            self.state.apply(event)
        if self.every_hash:
            self.hashes.append(self.state.state_hash())
        return step

    def _meet(self, order: Order, now_ns: int, say) -> None:
        rng = self.random
        number = order.intent.intent_no
        luck = rng.random()
        if order.status in FILLABLE and luck < 0.6:
            self._fill(order, now_ns, say)
        elif luck < 0.7:
            say(CancelRequested(ts_event_ns=now_ns, intent_no=number, reason="too old"))
            say(_closed(number, rng.choice(("canceled", "expired")), now_ns))
        elif order.status is OrderStatus.UNKNOWN and luck < 0.9:
            say(_closed(number, "never_placed", now_ns))
            if rng.random() < 0.3:
                say(OrderAccepted(ts_event_ns=now_ns, intent_no=number, venue_order_id="late"))

    def _fill(self, order: Order, now_ns: int, say) -> None:
        rng = self.random
        intent = order.intent
        step = self.state.instruments[intent.symbol].step_size
        left = order.open_quantity
        quantity = left
        if rng.random() < 0.5:
            quantity = max(left * Decimal(rng.randint(1, 9)) / 10 // step * step, step)
        price = Decimal(repr(round(self.prices[intent.symbol], 2)))
        base = intent.symbol.removesuffix("USDT")
        asset = rng.choice(("BNB", base if intent.side is Side.BUY else "USDT"))
        rate = Decimal("0.001")
        fee = quantity * rate if asset == base else quantity * price * rate
        if asset == "BNB" != base:
            fee = (fee / 100).quantize(Decimal("1e-8"))
        event = OrderFilled(
            ts_event_ns=now_ns,
            fill=Fill(
                trade_id=f"{intent.intent_no}-{order.age}",
                intent_no=intent.intent_no,
                book=intent.book,
                symbol=intent.symbol,
                side=intent.side,
                price=price,
                quantity=min(quantity, left),
                fee=fee,
                fee_asset=asset,
                liquidity=rng.choice(list(Liquidity)),
                ts_event_ns=now_ns,
                realised=price if intent.side is Side.SELL and intent.intent_no % 5 else None,
            ),
        )
        say(event)

    def _decide(self, symbol: str, number: int, now_ns: int, say) -> None:
        rng = self.random
        price = Decimal(repr(round(self.prices[symbol], 2)))
        say(RegimeNamed(ts_event_ns=now_ns, estimate=_estimate(symbol, now_ns, rng)))
        self._operate(symbol, number, now_ns, say)
        instrument = self.state.instruments[symbol]
        for book in Book:
            held = self.state.books[book].positions.get(symbol)
            live = self.state.live_orders(symbol, book)
            if held is None and not live and rng.random() < 0.5:
                quantity = instrument.floor_quantity(Decimal(rng.randint(6, 300)) / price)
                signal = _signal(symbol, price, now_ns)
                say(_verdict(signal, approved=book is Book.VALIDATED))
                say(_risk(book, signal, quantity))
                if quantity:
                    say(
                        self._intend(
                            book, symbol, Side.BUY, quantity, Purpose.ENTRY, price, now_ns
                        )
                    )
            elif held is not None and not live:
                quantity = instrument.floor_quantity(abs(held.quantity))
                purpose = rng.choice((Purpose.EXIT, Purpose.STOP, Purpose.EMERGENCY))
                if quantity:
                    say(self._intend(book, symbol, Side.SELL, quantity, purpose, price, now_ns))

    def _intend(
        self,
        book: Book,
        symbol: str,
        side: Side,
        quantity: Decimal,
        purpose: Purpose,
        price: Decimal,
        now_ns: int,
    ) -> OrderIntended:
        stop = purpose is Purpose.STOP
        kinds = (OrderType.STOP_MARKET,) if stop else (OrderType.MARKET, OrderType.LIMIT)
        return intended(
            self.state.next_intent_no,
            book=book,
            symbol=symbol,
            side=side,
            quantity=str(quantity),
            purpose=purpose,
            order_type=self.random.choice(kinds),
            price=price,
            ts_ns=now_ns,
        )

    def _operate(self, symbol: str, number: int, now_ns: int, say) -> None:
        rng = self.random
        if rng.random() < 0.1:
            book = rng.choice(list(Book))
            state = BreakerState(phase=BreakerPhase.OPEN, reason="loss streak", loss_streak=3)
            say(BreakerChanged(ts_event_ns=now_ns, book=book, state=state))
        if rng.random() < 0.05:
            verb = rng.choice(("halt", "resume", "reset_peak", "accept"))
            command_id = str(number)
            say(OperatorCommand(ts_event_ns=now_ns, verb=verb, reason="r", command_id=command_id))
        if rng.random() < 0.05:
            say(
                OverrideSet(
                    ts_event_ns=now_ns,
                    reason="r",
                    command_id=str(number),
                    expires_ts_ns=now_ns + rng.randrange(1, 50) * HOUR_MS * 1_000_000,
                    halt=rng.random() < 0.3,
                    limits={"max_position_pct": 0.01},
                )
            )
        if rng.random() < 0.05:
            say(
                GapSeen(ts_event_ns=now_ns, symbol=symbol, interval="1h", from_ms=0, to_ms=HOUR_MS)
            )
        if rng.random() < 0.05:
            say(
                ModelTrial(
                    ts_event_ns=now_ns,
                    interval="1h",
                    hmm_sha256="a" * 64,
                    lstm_sha256="b" * 64,
                    outcome="adopted",
                    candles=24,
                    agreement=0.9,
                )
            )
            say(
                ModelPromoted(
                    ts_event_ns=now_ns,
                    interval="1h",
                    hmm_sha256="a" * 64,
                    lstm_sha256="b" * 64,
                    schema_id="c" * 64,
                )
            )
        if rng.random() < 0.1:
            lost = Difference(
                kind=DifferenceKind.BALANCE,
                name="BNB",
                ours=Decimal(0),
                venue=Decimal(rng.randint(1, 9)),
                reason="never booked here",
            )
            say(
                Reconciled(
                    ts_event_ns=now_ns,
                    trades_through={symbol: rng.randint(1, 1000)},
                    opening={"USDT": Decimal(10_000)} if rng.random() < 0.5 else None,
                    differences=(lost,) if rng.random() < 0.5 else (),
                )
            )
        if number % 4 == 1:
            book = self.state.books[Book.VALIDATED]
            say(
                FundingPaid(
                    ts_event_ns=now_ns,
                    symbol=symbol,
                    asset="USDT",
                    amount=Decimal(number - 50) / 100,
                    transaction_id=number,
                    ours=book.held_at(symbol, now_ns) is not None,
                )
            )
        if rng.random() < 0.1:
            self._protect(symbol, now_ns, say)
        if rng.random() < 0.02:
            say(SessionEnded(ts_event_ns=now_ns, epoch=1, reason="stopped"))

    def _protect(self, symbol: str, now_ns: int, say) -> None:
        number = self.state.next_protection_no
        numbers = {"worst": 0.91, "ratio": 0.1, "liquidation_price": None}
        text = "margin consumed reached 90%"
        say(
            ProtectionAlarm(
                ts_event_ns=now_ns,
                severity="critical",
                code="MARGIN_ACT",
                subject="cross",
                text=text,
                numbers=numbers,
            )
        )
        say(
            ProtectionPlanned(
                ts_event_ns=now_ns,
                number=number,
                action="add_margin",
                wallet=f"{symbol} long",
                symbol=symbol,
                intent=None,
                client_id="",
                payload_hash="",
                amount=Decimal("12.34"),
                reason=text,
                numbers=numbers,
            )
        )
        if self.random.random() < 0.7:
            say(
                ProtectionSettled(
                    ts_event_ns=now_ns,
                    number=number,
                    status="filled",
                    filled=Decimal(0),
                    spent=Decimal(0),
                    text="",
                )
            )

    def _answer(self, order: Order, now_ns: int) -> JournaledEvent:
        number = order.intent.intent_no
        luck = self.random.random()
        if luck < 0.1:
            return OrderRejected(
                ts_event_ns=now_ns, intent_no=number, code="-2010", reason="insufficient balance"
            )
        if luck < 0.2:
            return OrderOutcomeUnknown(ts_event_ns=now_ns, intent_no=number, reason="timeout")
        return OrderAccepted(ts_event_ns=now_ns, intent_no=number, venue_order_id=f"v{number}")


def _closed(number: int, status: str, now_ns: int) -> OrderClosed:
    return OrderClosed(ts_event_ns=now_ns, intent_no=number, status=status, reason="why")


def _estimate(symbol: str, now_ns: int, rng: Random) -> RegimeEstimate:
    return RegimeEstimate(
        symbol=symbol,
        interval="1h",
        open_time_ms=now_ns // 1_000_000 - HOUR_MS,
        regime=rng.choice(list(Regime)),
        probabilities=(0.1, 0.1, 0.1, 0.1, 0.6),
        confidence=0.6,
        source=EstimateSource.LSTM,
        hmm_regime=Regime.BULL,
        hmm_confidence=0.7,
        volatility=0.01,
        model_sha256="d" * 64,
        schema_id="c" * 64,
    )


def _signal(symbol: str, price: Decimal, now_ns: int) -> TradingSignal:
    return TradingSignal(
        signal_id=f"rule:{symbol}:{now_ns}",
        rule_id="rule",
        symbol=symbol,
        action=SignalAction.ENTER,
        side=Side.BUY,
        confidence=0.8,
        price=float(price),
        stop_distance=0.1,
        regime=Regime.STRONG_BULL,
        volatility=0.01,
        ts_ns=now_ns,
    )


def _verdict(signal: TradingSignal, *, approved: bool) -> SignalDecided:
    return SignalDecided(
        ts_event_ns=signal.ts_ns,
        signal=signal,
        approved=approved,
        code="APPROVED" if approved else "NO_EVIDENCE",
        text="",
        suggestion="",
        numbers={"p_value": 0.01, "sharpe": None},
    )


def _risk(book: Book, signal: TradingSignal, quantity: Decimal) -> RiskDecided:
    return RiskDecided(
        ts_event_ns=signal.ts_ns,
        book=book,
        signal_id=signal.signal_id,
        symbol=signal.symbol,
        quantity=quantity,
        approved=True,
        code="APPROVED",
        limit=0.02,
        value=0.01,
        would_pass_size=quantity,
        risk_score=0.5,
    )
