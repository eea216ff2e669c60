"""Word of a promotion: heard at once where there is a Redis, missed without harm where not."""

import threading
import time

import pytest
import structlog

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.regime.notice import PromotionNotice, announce

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]


@pytest.fixture
def redis_server(own_redis):
    own_redis.start()
    return own_redis


@pytest.fixture(autouse=True)
def _plain_logs():
    yield
    structlog.reset_defaults()


def listening(url: str, heard: threading.Event) -> PromotionNotice:
    notice = PromotionNotice(url, heard)
    notice.start()
    return notice


def test_word_is_heard_within_moments(redis_server, wait_until) -> None:
    heard = threading.Event()
    notice = listening(redis_server.url, heard)
    try:
        wait_until(heard.is_set, "the subscription itself is a reason to look")
        heard.clear()
        began = time.monotonic()
        assert announce(redis_server.url, "1h") == ""
        assert heard.wait(5.0)
        assert time.monotonic() - began < 5.0
    finally:
        notice.stop()
    assert not notice._thread.is_alive()


def test_while_redis_is_away_nothing_is_heard_and_afterwards_one_looks_again(
    redis_server, wait_until
) -> None:
    told: list[str] = []
    structlog.configure(processors=[lambda _, __, e: told.append(e["event"]) or drop()])
    heard = threading.Event()
    notice = listening(redis_server.url, heard)
    try:
        wait_until(heard.is_set, "subscribed")
        redis_server.kill()
        heard.clear()
        assert "does not answer" in announce(redis_server.url, "1h")
        wait_until(lambda: bool(told), "told that redis is away")
        assert not heard.is_set()
        redis_server.start()
        wait_until(heard.is_set, "looks again, since word may have been lost")
    finally:
        notice.stop()
    assert told == ["redis is away, promotions are looked for"]


def drop():
    raise structlog.DropEvent


def test_a_url_that_is_none_is_refused_and_a_password_not_shown() -> None:
    with pytest.raises(ConfigError, match="expected redis://"):
        PromotionNotice("http://nowhere", threading.Event())
    said = announce("redis://:secret@127.0.0.1:1/0", "1h")
    assert "127.0.0.1:1" in said
    assert "secret" not in said


def test_a_notice_never_started_ends_too() -> None:
    PromotionNotice("redis://127.0.0.1:1/0", threading.Event()).stop()
