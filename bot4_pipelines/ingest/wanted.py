"""Which candles are wanted, as the environment says it: symbols, intervals, years, seconds.

No code names a symbol: ``BOT4_SYMBOLS=BTCUSDT,SOLUSDT BOT4_INTERVAL=4h BOT4_YEARS=6`` is enough.
Where candles come from is `bot4_pipelines.ingest.source`.
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bot4_runtime.domain.candle import INTERVALS_MS
from bot4_runtime.domain.errors import ConfigError

DEFAULT_INTERVAL: Final = "1h"
DEFAULT_YEARS: Final = 4.0
MOST_YEARS: Final = 20.0
DEFAULT_BUDGET_S: Final = 90.0
_SYMBOL: Final = re.compile(r"[A-Z0-9]{3,24}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ingest.

    Attributes:
        symbols: empty for all there are, or the three that are downloaded by default.
        interval: None when nobody said it: a folder says its own, 1h else.
        intervals: of the partitioned assets; those of `interval` when nobody said them.
        years: of history, up to now.
        budget_s: seconds a download may take.
    """

    symbols: tuple[str, ...] = ()
    interval: str | None = None
    intervals: tuple[str, ...] = (DEFAULT_INTERVAL,)
    years: float = DEFAULT_YEARS
    budget_s: float = DEFAULT_BUDGET_S


def wanted(environment: Mapping[str, str] | None = None) -> Wanted:
    """Read what is wanted.

    Args:
        environment: ``BOT4_SYMBOLS``, ``BOT4_INTERVAL``, ``BOT4_INTERVALS``, ``BOT4_YEARS``,
            ``BOT4_DOWNLOAD_SECONDS``; the process's when None.

    Raises:
        ConfigError: a variable has an impossible value.
    """
    env = os.environ if environment is None else environment
    symbols = tuple(
        symbol_name(word, "BOT4_SYMBOLS") for word in _words(env.get("BOT4_SYMBOLS", ""))
    )
    said = env.get("BOT4_INTERVAL", "").strip()
    interval = interval_name(said, "BOT4_INTERVAL") if said else None
    intervals = tuple(
        interval_name(word, "BOT4_INTERVALS") for word in _words(env.get("BOT4_INTERVALS", ""))
    )
    return Wanted(
        symbols=tuple(dict.fromkeys(symbols)),
        interval=interval,
        intervals=tuple(dict.fromkeys(intervals)) or (interval or DEFAULT_INTERVAL,),
        years=_number(env, "BOT4_YEARS", DEFAULT_YEARS, MOST_YEARS),
        budget_s=_number(env, "BOT4_DOWNLOAD_SECONDS", DEFAULT_BUDGET_S, 86_400.0),
    )


def symbol_name(text: str, where: str) -> str:
    """Return a symbol as Binance writes it.

    Raises:
        ConfigError: it is none.
    """
    symbol = text.strip().upper()
    if not _SYMBOL.fullmatch(symbol):
        raise ConfigError(f"{where} names {text!r}, which is no symbol; expected BTCUSDT,ETHUSDT")
    return symbol


def interval_name(text: str, where: str) -> str:
    """Return an interval's name.

    Raises:
        ConfigError: Binance has no such interval of fixed length.
    """
    if text not in INTERVALS_MS:
        raise ConfigError(
            f"{where} is {text!r}, which is no interval; expected one of: {' '.join(INTERVALS_MS)}"
        )
    return text


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[,\s]+", text) if word]


def _number(env: Mapping[str, str], name: str, default: float, most: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= most:
        raise ConfigError(f"{name} is {text!r}; expected a number above 0, at most {most:g}")
    return number
