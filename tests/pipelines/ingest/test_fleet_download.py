"""A year of a fleet's series from Binance: what came is kept, the rest is tried again."""

from pathlib import Path

import pytest

from bot4_pipelines.fleet import Fleet, SeriesPart
from bot4_pipelines.records import Folders
from bot4_runtime.domain.errors import VenueUnreachable

HOUR = 3_600_000
START = 1_704_067_200_000  # 2024-01-01
CLOSED = 75 * 24


def test_a_year_that_did_not_come_whole_is_kept_and_tried_again(
    binance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, url = binance
    monkeypatch.setenv("BOT4_ARCHIVE_URL", url)
    monkeypatch.setenv("BOT4_REST_URL", url)
    breaks = True

    def report(message: str, share: float) -> None:
        assert 0.0 <= share <= 1.0
        if breaks and "latest candles" in message:
            fake.rest_status = 403

    part = SeriesPart("BTCUSDT", "1h")
    fleet = Fleet(Folders(home=tmp_path / "home", models=tmp_path / "models"), report)
    with pytest.raises(VenueUnreachable, match="BTCUSDT_1h 2024 did not come whole"):
        fleet.candles(part, 2024)
    # the archive has January and February; the year's later months are missing in it
    assert len(fleet.series(part)) == 60 * 24
    breaks, fake.rest_status = False, None
    outcome = fleet.candles(part, 2024)
    assert outcome.record.numbers["candles"] == CLOSED
    assert min(fake.starts) == START + 60 * 24 * HOUR
    before = len(fake.asked)
    assert fleet.candles(part, 2023).record.numbers["candles"] == 0
    assert len(fake.asked) - before <= 15
