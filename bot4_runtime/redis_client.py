"""Connections to Redis, the same for all that use it: short time-outs, no retries of their own."""

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from bot4_runtime.domain.errors import ConfigError

if TYPE_CHECKING:
    import redis

SOCKET_SECONDS: Final = 1.0
"""How long Redis may take to answer before it counts as away."""


def shown(url: str) -> str:
    """Return where a URL leads, without user and password."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def connect(url: str) -> "redis.Redis":
    """Return a client; nothing is sent yet.

    Raises:
        ConfigError: the URL is none of Redis.
    """
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=SOCKET_SECONDS,
            socket_connect_timeout=SOCKET_SECONDS,
            retry=Retry(NoBackoff(), 0),
            client_name="bot4",
        )
    except ValueError:
        raise ConfigError(
            f"bridge.redis_url leads to {shown(url)!r}; expected redis://host:port/db, rediss:// "
            "or unix://, or nothing for no bridge"
        ) from None
