"""Proxies on the way to Binance: which addresses are one, and what is said to them.

An HTTP proxy is gone through by CONNECT, a SOCKS5 proxy by its own handshake (RFC 1928, 1929),
with the names resolved by the proxy: either sees names and no keys. SOCKS needs aiohttp-socks
(Apache-2.0), which is asked for by ``bot4[socks]`` alone.
"""

import socket
from base64 import b64encode
from importlib.util import find_spec
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import aiohttp

from bot4_runtime.domain.errors import ConfigError

SOCKS: Final = frozenset({"socks5", "socks5h"})
_LIBRARY: Final = "aiohttp_socks"


class NoTunnel(OSError):
    """The proxy let nothing through; the text is fit to be told."""


def checked_proxy(proxy: str) -> str:
    """Return a proxy's address.

    Raises:
        ConfigError: it is none, or needs what is not installed; its password is not repeated.
    """
    parts = urlsplit(proxy)
    try:
        known = parts.scheme in {"http", *SOCKS} and parts.hostname and parts.port
    except ValueError:  # the port is no number
        known = None
    if not known:
        raise ConfigError(
            f"a proxy of scheme {parts.scheme!r} cannot be gone through; expected "
            "http://host:port or socks5://host:port, with user:password@ where it asks for them"
        )
    if by_socks(proxy) and find_spec(_LIBRARY) is None:
        raise ConfigError(
            "a SOCKS proxy is gone through by aiohttp-socks, which is not installed: "
            "pip install 'bot4[socks]', or name an HTTP proxy"
        )
    return proxy


def by_socks(proxy: str) -> bool:
    """Tell whether a proxy speaks SOCKS5."""
    return urlsplit(proxy).scheme in SOCKS


def proxy_headers(proxy: str) -> dict[str, str]:
    """Return what an HTTP proxy asks its users for."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    told = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(told.encode()).decode()}"}


def socks_tunnel(proxy: str, host: str, port: int, within_s: float) -> socket.socket:
    """Open a connection through a SOCKS5 proxy; raises NoTunnel."""
    from python_socks import ProxyError
    from python_socks.sync import Proxy

    try:
        tunnel: socket.socket = Proxy(*_told(proxy)).connect(host, port, timeout=within_s)
    except (ProxyError, OSError) as error:
        raise NoTunnel(_reason(error)) from None
    return tunnel


def session_through(proxy: str | None) -> aiohttp.ClientSession:
    """Return a session whose connections go through a proxy; must be made on a running loop."""
    if proxy is None or not by_socks(checked_proxy(proxy)):
        return aiohttp.ClientSession(proxy=proxy)
    from aiohttp_socks import ProxyConnectionError, ProxyConnector, ProxyError, ProxyTimeoutError

    class Connector(ProxyConnector):
        """Fails as aiohttp's own connections do: the library's errors are of no family."""

        async def _connect_via_proxy(self, *place: Any, **named: Any) -> Any:
            try:
                return await super()._connect_via_proxy(*place, **named)
            except (ProxyError, ProxyConnectionError, ProxyTimeoutError, *_below()) as error:
                raise NoTunnel(_reason(error)) from None

    kind, host, port, user, password = _told(proxy)
    return aiohttp.ClientSession(
        connector=Connector(host, port, kind, username=user, password=password)
    )


def _below() -> tuple[type[Exception], ...]:
    from python_socks import ProxyError

    return (ProxyError, OSError, TimeoutError)


def _told(proxy: str) -> tuple[Any, str, int, str | None, str | None]:
    from python_socks import ProxyType

    parts = urlsplit(proxy)
    user = None if parts.username is None else unquote(parts.username)
    password = unquote(parts.password or "") if user is not None else None
    return ProxyType.SOCKS5, str(parts.hostname), int(parts.port or 0), user, password


def _reason(error: Exception) -> str:
    """Return what the proxy said; its password is in none of the library's messages."""
    return f"Tunnel connection failed: {str(error)[:120] or type(error).__name__}"
