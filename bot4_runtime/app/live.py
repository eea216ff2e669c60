"""Mode live: what must hold before a process trades with real money, and what it is about to risk.

Binance's own hosts are refused while `UNRELEASED` names a reason; a venue on loopback, to rehearse
it, never is. No order of this release was ever sent to a real market.

Everything is asked for by name, and all that is missing is told at once: the account, that real
money is meant, a key that trades and does nothing else, from a private file, and a machine on
which every check passes.
"""

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from bot4_runtime.app.hosts import Place, host_faults, place_of
from bot4_runtime.doctor import Finding
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.exchange.binance.signing import SECRET_FILE
from bot4_runtime.settings import Settings

UNRELEASED: Final[tuple[str, ...]] = (
    "the last hour of soaking left a position without a stop for 61 s, and was not repeated since",
    "after a kill it starts again only where all of `doctor` passes, while entries may rest",
)
"""Why this release sends no order to a host of real money; README tells it while there is any."""
UNTRIED: Final = (
    "No order of this release was ever sent to a real market: it was tested against the venue on "
    "loopback. Begin on the testnet, then with an amount you can lose"
)
KEY_CHECK: Final = "Binance key"


def require_meant(settings: Settings, environment: Mapping[str, str]) -> None:
    """Refuse settings that do not say in so many words that real money is meant.

    Hosts of real money are refused whatever the settings say, while `UNRELEASED` names a reason.

    Raises:
        ConfigError: names all that is missing.
    """
    named = settings.binance
    missing = host_faults(settings)
    if UNRELEASED and Place.REAL in {place_of(url) for url in named.hosts("live")}:
        missing.append(
            "this release does not trade at Binance's own hosts with real money, since "
            f"{', '.join(UNRELEASED)}: use mode testnet, or name a venue on 127.0.0.1 in "
            "binance.rest_url and binance.stream_url to rehearse mode live"
        )
    if not named.real_money:
        missing.append("binance.real_money is false: set it to true")
    if not named.account_uid:
        missing.append("binance.account_uid is 0: set it to the account that is to trade")
    if not settings.runtime.symbols:
        missing.append("runtime.symbols is empty: name what is to be traded")
    if not environment.get(SECRET_FILE):
        missing.append(f"{SECRET_FILE} names no file: this key lies in one, of mode 0600")
    if missing:
        raise ConfigError("mode live trades with real money. " + "; ".join(missing))


def require_healthy(findings: Iterable[Finding]) -> None:
    """Refuse a machine, or a key, on which a check fails.

    Args:
        findings: of all checks, the network's among them.

    Raises:
        ConfigError: names the checks that failed; the key's must be there.
    """
    found = {finding.check: finding for finding in findings}
    failed = [f"{f.check}: {f.found}" for f in found.values() if not f.ok]
    if KEY_CHECK not in found:
        failed.append(f"{KEY_CHECK}: it was not looked at")
    if failed:
        raise ConfigError(
            "mode live starts where `bot4-runtime doctor --network` passes, and it does not: "
            + "; ".join(failed)
        )


def at_risk(settings: Settings) -> list[str]:
    """Return what a session is about to risk, a line a thing."""
    risk, named, quote = settings.risk, settings.binance, settings.runtime.quote
    cash = settings.initial_cash
    day = float(cash) * risk.max_daily_loss
    most = float(cash) * risk.max_drawdown
    return [
        f"REAL MONEY at {urlsplit(named.hosts('live')[0]).hostname}, account {named.account_uid}: "
        f"{cash:f} {quote} in {', '.join(settings.runtime.symbols)}",
        f"at most {risk.max_position_pct:.1%} of equity in one symbol, leverage "
        f"{risk.max_leverage:g}, {float(cash) * risk.max_turnover_per_minute:,.0f} {quote} of "
        "entries a minute",
        f"entries stop after a loss of {day:,.0f} {quote} in a day or {most:,.0f} {quote} from "
        "the highest equity; gaps and slippage come on top of both",
        "stop with Ctrl-C, `bot4-runtime halt` or `bot4-runtime flatten`",
        UNTRIED,
    ]
