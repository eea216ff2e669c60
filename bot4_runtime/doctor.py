"""Checks this machine, the settings, the models, the journal and the servers that are set."""

import os
import platform
import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console

from bot4_runtime.bridge import ping
from bot4_runtime.build import require_fresh
from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import (
    Bot4Error,
    ConfigError,
    JournalMissing,
    OutcomeUnknown,
    VenueUnreachable,
)
from bot4_runtime.exchange.binance.signing import API_KEY, signer_from_environment
from bot4_runtime.redis_client import shown
from bot4_runtime.regime.evidence import evidence_path, read_evidence
from bot4_runtime.regime.registry import ModelRegistry
from bot4_runtime.settings import Settings, load_settings
from bot4_runtime.state.reader import JournalReader

if TYPE_CHECKING:
    from bot4_runtime.exchange.binance.futures import BinanceFutures

TESTNETS = (".binance.vision",)
"""Domains of hosts with play money; their keys have no rights to tell."""
LEAST_FREE_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what it looked at, whether it holds, what it found.

    Attributes:
        asked: False when nobody could be asked: that says nothing of what was to be looked at.
    """

    check: str
    ok: bool
    found: str
    asked: bool = True

    def told(self) -> dict[str, object]:
        """Return the finding as plain data."""
        return {"check": self.check, "ok": self.ok, "found": self.found}


def examine(configured: Path | Settings | None, *, network: bool) -> list[Finding]:
    """Run all checks; a check that raises is a check that failed.

    Args:
        configured: the settings to look at, or their file; None for the usual file.
        network: whether Binance is asked too.
    """
    findings = [
        Finding("python", True, f"{platform.python_version()}, {platform.machine()}"),
        _run("compiled modules", _compiled),
    ]
    loaded: list[Settings] = []

    def settings_check() -> str:
        read = configured if isinstance(configured, Settings) else load_settings(configured)
        loaded.append(read)
        return f"read, trading hash {loaded[0].trading_hash()[:12]}"

    findings.append(_run("settings", settings_check))
    if not loaded:
        return findings
    settings = loaded[0]
    findings += [
        _run("home folder", lambda: _home(settings.home)),
        _run("SQLite", lambda: f"{sqlite3.sqlite_version}"),
        _run("models", lambda: _models(settings)),
        _run("journal", lambda: _journal(settings)),
    ]
    if settings.bridge.redis_url:
        findings.append(_run("Redis", lambda: _redis(settings)))
    if network:
        findings.append(_run("Binance", lambda: _binance(settings)))
        if os.environ.get(API_KEY):
            findings.append(_run("Binance key", lambda: _binance_key(settings)))
    return findings


def print_findings(findings: list[Finding], console: Console) -> None:
    """Show the findings, one a line."""
    for finding in findings:
        mark = "[green]ok  [/]" if finding.ok else "[red]FAIL[/]"
        console.print(f"{mark} {finding.check}: ", end="", highlight=False)
        console.print(finding.found, markup=False, highlight=False, soft_wrap=True)


def _run(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, ok=True, found=check())
    except (Bot4Error, OSError) as error:
        silent = isinstance(error, VenueUnreachable | OutcomeUnknown)
        return Finding(name, ok=False, found=str(error), asked=not silent)


def _compiled() -> str:
    return require_fresh().notice


def _home(home: Path) -> str:
    home.mkdir(parents=True, exist_ok=True)
    probe = home / f".doctor-{time.monotonic_ns()}"
    probe.write_text("writable")
    probe.unlink()
    free = shutil.disk_usage(home).free
    if free < LEAST_FREE_BYTES:
        raise OSError(f"{home} has {free // 2**20} MiB free, at least 512 are needed")
    return f"{home} is writable, {free // 2**30} GiB free"


def _models(settings: Settings) -> str:
    registry = ModelRegistry(settings.models)
    interval = settings.runtime.interval
    pair = registry.load(interval, time.time_ns() // 1_000_000)
    records = read_evidence(
        evidence_path(settings.models, interval), pair.hmm_sha256, pair.lstm_sha256
    )
    return (
        f"{interval}: hmm {pair.hmm_sha256[:12]}, lstm {pair.lstm_sha256[:12]} verified; "
        f"{len(records)} evidence records"
    )


def _journal(settings: Settings) -> str:
    """Check the account's journal; a configured database is asked, also before the first run."""
    account, chosen = settings.runtime.account, settings.state.journal
    folder = settings.home / "state" / account
    try:
        with JournalReader.of_account(folder, account, chosen) as journal:
            count = journal.verify()
    except JournalMissing:
        there = "" if chosen == "sqlite" else f"{chosen} answers; "
        return f"{there}account {account!r} has none yet"
    return f"{count} events, every checksum holds"


def _redis(settings: Settings) -> str:
    ping(settings.bridge.redis_url)
    return f"{shown(settings.bridge.redis_url)} answers"


def _binance(settings: Settings) -> str:
    from bot4_runtime.app.source import polled_candles

    source = polled_candles(settings, settings.runtime.symbols or ("BTCUSDT",))
    source.check()
    return f"answers; {', '.join(source.symbols)} exist"


def _binance_key(settings: Settings) -> str:
    """Ask Binance whose the key is and what it may do; one that may move money fails."""
    from bot4_runtime.app.hosts import request_budget
    from bot4_runtime.exchange.binance.futures import BinanceFutures
    from bot4_runtime.exchange.binance.spot import BinanceSpot

    binance, signer = settings.binance, signer_from_environment(os.environ)
    market = Market(settings.runtime.market)
    rest_url, _ = binance.hosts(settings.runtime.mode, market.value)
    host = urlsplit(rest_url).hostname or ""
    play_money = host.endswith(TESTNETS)
    budget, proxy = request_budget(rest_url, market), binance.proxy or None
    if market is Market.USDM:
        contracts = BinanceFutures(rest_url, None, signer, LiveClock(), budget=budget, proxy=proxy)
        return _contracts_key(contracts, f"{signer.scheme.value} key at {host}")
    client = BinanceSpot(rest_url, None, signer, LiveClock(), budget=budget, proxy=proxy)
    try:
        client.start()
        told = client.key(with_rights=not play_money)
    finally:
        client.close()
    faults = told.faults(binance.account_uid)
    if faults:
        raise ConfigError("; ".join(faults))
    rights = "reads and trades alone, bound to addresses"
    return (
        f"{signer.scheme.value} key of account {told.holder.uid} at {host}, "
        f"{rights if told.rights is not None else 'a testnet, which tells no rights'}; its time "
        f"is known to {client.clock_error_ms():.0f} ms"
    )


def _contracts_key(client: "BinanceFutures", what: str) -> str:
    """Ask USD-M whether the key may trade; it tells neither the account nor other rights."""
    try:
        client.start()
        may_trade = client.may_trade()
    finally:
        client.close()
    if not may_trade:
        raise ConfigError(f"{what} may not trade USD-M; let it, in Binance's API management")
    return f"{what} trades USD-M; its time is known to {client.clock_error_ms():.0f} ms"
