"""Which market an address belongs to, and which addresses a mode may trade at and read from.

Orders and the prices that they are decided on must be of one market: real money, the testnet, or
a venue on loopback. A host that is none of these is refused.
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Final
from urllib.parse import SplitResult, urlsplit

from bot4_runtime.domain.candle import Market
from bot4_runtime.exchange.binance.http_connection import LOOPBACK
from bot4_runtime.exchange.binance.limits import RequestBudget, shared_budget
from bot4_runtime.settings import Settings

REAL_MONEY: Final = (".binance.com", ".binance.us", ".binance.vision")
"""Ends of hosts of the real markets; those of `TESTNETS` are looked at first."""
DOORS: Final = re.compile(r"api(?:\d+|-gcp)?\.(binance\.(?:com|us))")
TESTNETS: Final = (
    "testnet.binance.vision",
    ".testnet.binance.vision",
    "demo-fapi.binance.com",
    ".binancefuture.com",
)
"""Hosts of play money; those that begin with a dot are ends of them."""


class Place(StrEnum):
    """Whose market a host serves."""

    REAL = "of real money"
    TESTNET = "of the testnet"
    LOOPBACK = "on this machine"
    UNKNOWN = "no host that is known"


def place_of(url: str) -> Place:
    """Return whose market an address is of; what cannot be read is unknown."""
    parts = _parts(url)
    host = (parts.hostname or "") if parts is not None else ""
    if host in LOOPBACK:
        return Place.LOOPBACK
    if any(host.endswith(name) if name[0] == "." else host == name for name in TESTNETS):
        return Place.TESTNET
    return Place.REAL if host.endswith(REAL_MONEY) else Place.UNKNOWN


def venue_name(url: str) -> str:
    """Return the venue that an address is of: all of Binance's own doors are one.

    On this machine the port tells one venue from another.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in LOOPBACK:
        return f"127.0.0.1:{parts.port}"
    door = DOORS.fullmatch(host)
    return f"api.{door[1]}" if door else host


def request_budget(url: str, market: Market) -> RequestBudget:
    """Return what may be asked of a server: all processes of this machine share it.

    Testnets are counted apart, and each client of a venue on this machine for itself.
    """
    place = place_of(url)
    if place is Place.LOOPBACK:
        return RequestBudget(None, market)
    return shared_budget(market, testnet=place is Place.TESTNET)


def trades_on_loopback(settings: Settings) -> bool:
    """Tell whether all ways of orders end on this machine."""
    return all(place_of(url) is Place.LOOPBACK for url in _traded(settings).values())


def _traded(settings: Settings) -> dict[str, str]:
    """Return the servers that are traded at, by the setting that names each."""
    binance, mode, market = settings.binance, settings.runtime.mode, settings.runtime.market
    rest_url, stream_url = binance.hosts(mode, market)
    traded = {"binance.rest_url": rest_url, "binance.stream_url": stream_url}
    if market == "usdm":
        traded["binance.private_url"] = binance.private_route(mode)
    return traded


def _read(settings: Settings) -> dict[str, str]:
    """Return the servers that candles are read from, by the setting that names each."""
    read = {"source.rest_url": settings.source.rest_url}
    if settings.runtime.market == "spot":
        return read | {"source.spot_stream": settings.source.spot_stream}
    hosts = settings.stream_hosts()
    return read | {"source.usdm_market_stream": "" if hosts is None else hosts.usdm_market}


def host_faults(settings: Settings) -> list[str]:
    """Return why modes ``testnet`` and ``live`` must not trade with these addresses.

    Raises:
        ConfigError: of two addresses of one venue one is named.
    """
    return list(_faults(settings))


def _faults(settings: Settings) -> Iterator[str]:
    mode = settings.runtime.mode
    wanted = Place.REAL if mode == "live" else Place.TESTNET
    traded, read = _traded(settings), _read(settings)
    rest_url = traded["binance.rest_url"]
    places = {name: place_of(url) for name, url in traded.items()}
    foreign = [name for name in traded if places[name] not in {wanted, Place.LOOPBACK}]
    for name in foreign:
        yield (
            f"{name} {traded[name]!r} is {places[name].value}, and mode {mode} trades at hosts "
            f"{wanted.value} or on 127.0.0.1: leave it out"
        )
    if not foreign and len(set(places.values())) > 1:
        yield (
            f"{', '.join(f'{name} {traded[name]!r} is {places[name].value}' for name in traded)}: "
            f"name {'two' if len(traded) == 2 else 'three'} of one venue"
        )
    for name, url in read.items():
        if url and place_of(url) is not places["binance.rest_url"]:
            yield (
                f"{name} {url!r} is {place_of(url).value}, and orders would go to {rest_url!r}, "
                f"{places['binance.rest_url'].value}, on prices of another market: leave it out"
            )
    for name, url in (traded | read).items():
        if url and not _sealed(url):
            yield f"{name} {url!r} would go in the clear: expected https or wss outside 127.0.0.1"


def _sealed(url: str) -> bool:
    parts = _parts(url)
    return place_of(url) is Place.LOOPBACK or (
        parts is not None and parts.scheme in {"https", "wss"}
    )


def _parts(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None
