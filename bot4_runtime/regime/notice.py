"""Word of a promotion over Redis, so that a runtime need not wait for its next look.

Word is all it is: whoever hears it looks at the pointer of promoted models and believes that
alone. A runtime that hears nothing, because Redis is away or is not set, looks once a second.
"""

import random
import threading
from typing import Any, Final

import structlog

from bot4_runtime.redis_client import SOCKET_SECONDS, connect, shown

CHANNEL: Final = "bot4:models"
"""Redis Pub/Sub channel; the message is the interval."""
REDIS_URL: Final = "BOT4_BRIDGE__REDIS_URL"
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0


def announce(url: str, interval: str) -> str:
    """Say that a pair was promoted; return why that did not work, empty when it did."""
    from redis.exceptions import RedisError

    client = connect(url)
    try:
        client.publish(CHANNEL, interval)
    except (RedisError, OSError) as error:
        return f"Redis at {shown(url)} does not answer ({error}): runtimes look by themselves"
    finally:
        client.close()
    return ""


class PromotionNotice:
    """Listens in a thread of its own; nothing waits for it and nothing depends on it.

    Args:
        url: of Redis.
        heard: set when word comes, and when the connection comes back, since word may be lost.

    Raises:
        ConfigError: the URL is none of Redis.
    """

    def __init__(self, url: str, heard: threading.Event) -> None:
        self._client: Final = connect(url)
        self._where: Final = shown(url)
        self._heard: Final = heard
        self._stop: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._work, name="promotions", daemon=True)
        self._log: Final = structlog.get_logger("models")

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """End, within about two seconds."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=3 * SOCKET_SECONDS)

    def _work(self) -> None:
        from redis.client import PubSub
        from redis.exceptions import RedisError

        pause, away = _FIRST_PAUSE, False
        while not self._stop.is_set():
            channel: Any = PubSub(self._client.connection_pool)
            try:
                channel.subscribe(CHANNEL)
                while not self._stop.is_set():
                    message = channel.get_message(timeout=SOCKET_SECONDS / 2)
                    if message is not None:
                        pause, away = _FIRST_PAUSE, False
                        self._heard.set()
            except (RedisError, OSError) as error:
                if not away:
                    self._log.warning(
                        "redis is away, promotions are looked for",
                        redis=self._where,
                        why=str(error),
                    )
                away = True
                self._stop.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                pause = min(2 * pause, _LONGEST_PAUSE)
            finally:
                channel.close()
        self._client.close()
