"""HTTP proxies on the way to Binance: which addresses are one, and what is said to them.

All ways go through by CONNECT, so that a proxy sees names and no keys.
"""

from base64 import b64encode
from urllib.parse import unquote, urlsplit

from bot4_runtime.domain.errors import ConfigError


def checked_proxy(proxy: str) -> str:
    """Return a proxy's address.

    Raises:
        ConfigError: it is none; its password is not repeated.
    """
    parts = urlsplit(proxy)
    try:
        known = parts.scheme == "http" and parts.hostname and parts.port
    except ValueError:  # the port is no number
        known = None
    if not known:
        raise ConfigError(
            f"a proxy of scheme {parts.scheme!r} cannot be gone through; expected "
            "http://host:port, with user:password@ where it asks for them"
        )
    return proxy


def proxy_headers(proxy: str) -> dict[str, str]:
    """Return what the proxy asks its users for."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    told = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(told.encode()).decode()}"}
