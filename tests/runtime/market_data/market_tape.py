"""What others trade on the venue of these tests, and the candles that makes."""

from decimal import Decimal

from bot4_runtime.venue.tape import Print

MINUTE = 60_000
FROM = 1_800_000_000_000 // MINUTE * MINUTE
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def tape(minutes=30, a_minute=6):
    """Prints of both markets, every ten seconds."""
    for number in range(minutes * a_minute):
        for index, symbol in enumerate(SYMBOLS):
            price = Decimal(40_000 + 1_000 * index + (number * 37 + index) % 101) / (1 + index * 9)
            yield Print(
                FROM + number * MINUTE // a_minute + index,
                symbol,
                round(price, 2),
                Decimal(1 + number % 7) / 100,
            )
