"""No message makes a decoder raise anything but its own errors: real ones, damaged.

`python -m tests.fuzz` does the same for longer, guided by coverage where atheris is installed.
"""

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from damage import damaged
from fuzz_target import Target
from hypothesis import given, settings
from hypothesis import strategies as st
from registry import TARGETS
from targets_files import HEADER, rows

from bot4_runtime.domain.errors import DataError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", TARGETS)
def test_each_target_reads_its_own_messages_and_refuses_nonsense(name):
    target = TARGETS[name]
    assert target.seeds
    assert all(target.tried(seed) for seed in target.seeds)
    read = [target.tried(nonsense) for nonsense in (b"", b"\xff\xfe", b"nonsense", b"[" * 5_000)]
    assert not all(read) or name == "budget_file", (
        "what is no message counts there as nothing used"
    )


DEEP = b"[" * 3_000


@pytest.mark.parametrize(
    ("name", "of", "to"),
    [
        ("answer_placed", b"BTCUSDT", b"BTC\xffUSDT"),
        ("answer_placed", b'"fills": [', b'"fills": [' + DEEP),
        ("answer_placed", b'"qty": "0.01"', b'"qty": "1e-999999999999"'),
        ("answer_account", b'"1.5"', b'"9e999999999999999999"'),
        ("answer_open_orders", b'"0.5"', b'"9e999999999999999999"'),
        ("answer_rules", b'"stepSize": "0.00001"', b'"stepSize": "1e-999999999"'),
        ("answer_rules", b"LOT_SIZE", b"LOT\xff_SIZE"),
        ("answer_amended", b'"qty": "0.01"', b'"qty": "sNaN"'),
        ("market_stream", b"-0.00038167", b"0e99999999999999999999999"),
        ("error", b"banned", b"\xff"),
        ("user_stream", b"{", b'{"x": ' + DEEP),
        ("futures_user_stream", b"{", b'{"x": ' + DEEP),
        ("order_line", b"{", b'{"x": ' + DEEP),
        ("candles_csv", b"open,high,low", b"open,high,Open"),
        ("candles_zip", rows().encode(), (HEADER[:20] + "h\n").encode()),
        ("holdings_answer", b"-0.01", b"9e999999999999999999"),
        ("brackets", b'"cum": 50.0', b'"cum": 1' + b"0" * 400),
        ("journal_frame", b"BTCUSDT", b"BTC\xffSDT"),
        ("manifest", b'"s"', b'"\xff"'),
        ("polled_markets", b'"symbol": "BTCUSDT"', b'"symbol": []'),
        ("polled_markets", b'"pricePrecision": ', b'"pricePrecision": 100000000'),
        ("polled_markets", b'"quantityPrecision": ', b'"quantityPrecision": -100000000'),
        ("polled_markets", b'"baseAssetPrecision": ', b'"baseAssetPrecision": 1e9, "x": '),
        ("polled_markets", b'"quotePrecision": ', b'"quotePrecision": "100000000", "x": '),
        ("fetched_markets", b'"symbol": "BTCUSDT"', b'"symbol": []'),
        ("venue_spot_api", b'"ping"', b'["ping"]'),
        ("venue_spot_streams", b'"SUBSCRIBE"', b'["SUBSCRIBE"]'),
        ("venue_usdm_streams", b'"SUBSCRIBE"', b'["SUBSCRIBE"]'),
    ],
)
def test_what_once_got_through_is_refused_by_name(name, of, to):
    target = TARGETS[name]
    seed = next(seed for seed in target.seeds if of in seed)
    assert not target.tried(seed.replace(of, to, 1))


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_messages_are_read_or_refused_by_name(name):
    target = TARGETS[name]

    @settings(max_examples=60)
    @given(st.sampled_from(target.seeds), st.randoms(use_true_random=False))
    def tried(seed, rng):
        target.tried(damaged(seed, rng))

    tried()


@pytest.mark.parametrize("name", ["market_stream", "user_stream", "order_line", "answer_placed", "manifest", "settings", "venue_spot_api"])  # fmt: skip
@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")))  # fmt: skip
@settings(max_examples=40)
def test_any_bytes_are_read_or_refused_by_name(name, message):
    TARGETS[name].tried(message)


@pytest.mark.data
@pytest.mark.parametrize("market", ["spot", "usdm"])
def test_recorded_messages_are_read_or_refused_however_damaged(test_data, market):
    target, rng = TARGETS["market_stream"], random.Random(20240808)
    with gzip.open(test_data / "wire" / f"{market}_btcusdt_20240808.gz") as file:
        told = [line.partition(b" ")[2] for line in file if b"lastUpdateId" not in line][::20]
    assert len(told) > 1_000
    assert all(target.tried(message) for message in told)
    for message in told:
        target.tried(damaged(message, rng))


def test_damage_changes_messages_and_leaves_many_readable():
    rng = random.Random(7)
    told = [json.dumps({"a": [1, "x"], "b": {"c": 2}}).encode()] * 400
    made = [damaged(one, rng) for one in told]
    assert len(set(made)) > 150

    def parses(message):
        try:
            json.loads(message)
        except (ValueError, RecursionError):
            return False
        return True

    assert 100 < sum(map(parses, made)) < 350


def test_a_decoder_that_lets_an_error_through_is_caught():
    def careless(message):
        if b"1.5" not in message:
            raise KeyError("price")

    target = Target("careless", careless, (DataError,), (b'{"price": "1.5"}',))
    assert target.tried(target.seeds[0])
    rng = random.Random(1)
    with pytest.raises(KeyError):
        for _ in range(200):
            target.tried(damaged(target.seeds[0], rng))


def test_the_command_tries_a_target_and_says_how_often():
    said = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "archive_checksum", "--seconds", "0.2", "--plain"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert "archive_checksum" in said.stdout
    assert "0 faults" in said.stdout


def test_the_command_refuses_a_target_nobody_knows():
    said = subprocess.run([sys.executable, "-m", "tests.fuzz", "nobody"], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)  # fmt: skip
    assert said.returncode == 2
    assert "market_stream" in said.stderr
