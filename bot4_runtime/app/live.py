"""Mode live: what must hold before a process trades with real money, and what it is about to risk.

Binance's own hosts are refused while `UNRELEASED` names a reason; a venue on loopback, to rehearse
it, never is. No order of this release was ever sent to a real market.

Everything is asked for by name, and all that is missing is told at once: the account, that real
money is meant, a key that trades and does nothing else, from a private file, and a machine on
which every check passes. While orders or positions are open, as after a kill, only a key or an
account that does not fit keeps the process away from them; whatever else fails lets no entry out.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bot4_runtime.app.hosts import Place, host_faults, place_of
from bot4_runtime.doctor import Finding
from bot4_runtime.domain.errors import ConfigError, JournalError
from bot4_runtime.exchange.binance.signing import SECRET_FILE
from bot4_runtime.settings import Settings
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.withdrawal import has_open

UNRELEASED: Final[tuple[str, ...]] = (
    "an hour of soaking cancelled a stop while others had used up what the venue lets pass in a "
    "minute, which is mended, and the hour was not repeated since",
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


def require_healthy(findings: Iterable[Finding], at_stake: Callable[[], bool]) -> str:
    """Refuse a machine, or a key, on which a check fails; with something open, the key alone.

    Args:
        findings: of all checks, the network's among them.
        at_stake: tells whether orders or positions are open; asked when a check failed.

    Returns:
        Why entries must wait for as long as the process lives; empty when they need not.

    Raises:
        ConfigError: names the checks that failed; the key's must be there.
    """
    found = {finding.check: finding for finding in findings}
    key = found.setdefault(KEY_CHECK, Finding(KEY_CHECK, ok=False, found="it was not looked at"))
    failed = "; ".join(f"{f.check}: {f.found}" for f in found.values() if not f.ok)
    if failed and not ((key.ok or not key.asked) and at_stake()):
        raise ConfigError(
            "mode live starts where `bot4-runtime doctor --network` passes, and it does not: "
            + failed
        )
    return failed and f"`bot4-runtime doctor --network` did not pass at the start: {failed}"


def at_stake(settings: Settings, folder: Path) -> bool:
    """Tell whether the journal of the account's folder has orders or positions open.

    What no journal tells, or one that cannot be read, cannot be looked after either.
    """
    chosen = settings.state.journal
    try:
        with JournalReader.of_account(folder, settings.runtime.account, chosen) as journal:
            state = journal.state(folder / "snapshots")
    except JournalError:
        return False
    return has_open(state)


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
