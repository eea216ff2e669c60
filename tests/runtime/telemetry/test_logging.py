"""No secret reaches a log, in whatever shape it is handed over."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from bot4_runtime.telemetry import configure_logging, redact_text

CANARY = "canary-4f7a91c2"


@pytest.fixture(autouse=True)
def _quiet_afterwards() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def log_to(file: Path, level: str = "info") -> structlog.typing.FilteringBoundLogger:
    configure_logging(level, file)
    return structlog.get_logger("test")


def lines_of(file: Path) -> list[dict[str, object]]:
    structlog.get_config()["logger_factory"]._file.close()
    return [json.loads(line) for line in file.read_text().splitlines()]


SHAPES: dict[str, dict[str, object]] = {
    "key": {"api_secret": CANARY},
    "camel key": {"apiKey": CANARY},
    "passphrase": {"passphrase": CANARY},
    "authorization": {"authorization": CANARY},
    "nested": {"config": {"venue": {"api_key": CANARY, "name": "kept"}}},
    "list": {"requests": [{"signature": CANARY}]},
    "tuple of text": {"arguments": ("--token=" + CANARY,)},
    "query": {"url": f"https://x/order?symbol=BTCUSDT&signature={CANARY}&recvWindow=5"},
    "credentials in url": {"dsn": f"postgresql://bot4:{CANARY}@localhost/db"},
    "password without a user in url": {"dsn": f"redis://:{CANARY}@localhost/0"},
    "json text": {"body": json.dumps({"apiKey": CANARY, "ok": 1})},
    "single quotes": {"body": str({"secret": CANARY})},
    "header": {"headers": f"X-MBX-APIKEY: {CANARY}"},
    "bearer": {"headers": f"Authorization: Bearer {CANARY}"},
    "secret key in text": {"text": f"secretKey={CANARY}"},
    "private key in text": {"text": f"private_key = {CANARY}"},
    "an object": {"error": ValueError(f"password={CANARY}")},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_secret_never_reaches_the_file(tmp_path: Path, shape: str) -> None:
    file = tmp_path / "logs" / "runtime.jsonl"
    log = log_to(file)
    log.warning("sent", **SHAPES[shape])
    (line,) = lines_of(file)
    assert CANARY not in file.read_text()
    assert "[hidden]" in file.read_text()
    assert line["event"] == "sent"
    assert line["level"] == "warning"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_secret_never_reaches_stderr(capsys: pytest.CaptureFixture[str], shape: str) -> None:
    configure_logging("info")
    structlog.get_logger("test").error("sent", **SHAPES[shape])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert CANARY not in captured.err
    assert "sent" in captured.err


def test_a_secret_in_the_message_or_a_traceback_is_hidden(tmp_path: Path) -> None:
    file = tmp_path / "runtime.jsonl"
    log = log_to(file)
    try:
        {}[f"GET /order?signature={CANARY} failed"]
    except KeyError:
        log.exception("lost with token=%s", CANARY)
    text = file.read_text()
    lines_of(file)
    assert CANARY not in text
    assert "KeyError" in text


def test_what_is_no_secret_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "runtime.jsonl"
    log = log_to(file)
    told = {
        "count": 3,
        "share": 0.5,
        "on": True,
        "none": None,
        "names": ["a", "b"],
        "at": {"x": 1},
    }
    log.info("all of it", **told)
    (line,) = lines_of(file)
    assert {key: line[key] for key in told} == told
    assert redact_text("the token expired; the secret is out") == (
        "the token expired; the secret is out"
    )


def test_the_level_is_a_threshold(tmp_path: Path) -> None:
    file = tmp_path / "runtime.jsonl"
    log = log_to(file, "warning")
    log.info("unheard")
    log.warning("heard")
    assert [line["event"] for line in lines_of(file)] == ["heard"]
    assert logging.getLevelNamesMapping()["WARNING"] == 30


def test_logs_are_appended_over_restarts(tmp_path: Path) -> None:
    file = tmp_path / "runtime.jsonl"
    for word in ("one", "two"):
        log_to(file).info(word)
        lines = lines_of(file)
    assert [line["event"] for line in lines] == ["one", "two"]
