"""Recorded messages of a real market."""

import gzip
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def captured(test_data):
    """Yield (nanoseconds at the recorder, message) of a market's capture."""

    def read(market: str) -> Iterator[tuple[int, bytes]]:
        with gzip.open(test_data / "wire" / f"{market}_btcusdt_20240808.gz") as lines:
            for line in lines:
                received, _, message = line.partition(b" ")
                yield int(received), message.strip()

    return read
