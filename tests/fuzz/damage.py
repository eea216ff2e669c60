"""Messages that nearly are one: a real one, damaged here and there.

Half of it is done to the JSON, so that what comes out still parses and reaches the checks behind
the parser; half to the bytes.
"""

import json
import random

NESTED = "[" * 3_000
ODD = (
    None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**400,
    "", " ", "0", "-1", "-0", "1e-400", "1E+400", "9e999999999999999999", "9e99999999999999999999999",
    "1e-999999999999999999", "NaN", "sNaN", "-Infinity", "Infinity", "0x10", "1_0", "١", "\u0000", "\udcff",
    "é" * 40, "x" * 70, "x" * 5_000, [], {}, [[]], {"": None}, [1, 2], ["a", "b"],
)  # fmt: skip
BYTES = (
    b"\xff",
    b"\x00",
    b"\xed\xa0\x80",
    b'"',
    b"}",
    b"]",
    b",",
    b"1e999",
    b"NaN",
    b"null",
    b"\\u",
)


def damaged(sample: bytes, rng: random.Random) -> bytes:
    """Return a sample with one to three faults."""
    for _ in range(rng.randint(1, 3)):
        sample = (_rewritten if rng.random() < 0.6 else _torn)(sample, rng)
    return sample


def _rewritten(sample: bytes, rng: random.Random) -> bytes:
    """Change a value of the JSON; what is none is torn."""
    try:
        told = json.loads(sample)
    except (ValueError, RecursionError):
        return _torn(sample, rng)
    places = list(_places(told))
    if not places:
        return json.dumps(rng.choice(ODD)).encode()
    where, key = rng.choice(places)
    kind = rng.randrange(5)
    if kind == 0 and isinstance(where, dict):
        del where[key]
    elif kind == 1:
        other, name = rng.choice(places)
        if (isinstance(other, dict) and name not in other) or (
            isinstance(other, list) and name >= len(other)
        ):
            return sample
        where[key] = json.loads(json.dumps(other[name]))
    elif kind == 2:
        where[key] = [where[key]] * rng.randint(0, 3)
    elif kind == 3 and rng.random() < 0.1:
        return json.dumps(told).encode().replace(b"[", NESTED.encode(), 1)
    else:
        where[key] = rng.choice(ODD)
    return json.dumps(told, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _places(told: object, depth: int = 0):
    if depth > 20:
        return
    if isinstance(told, dict):
        for key in told:
            yield told, key
            yield from _places(told[key], depth + 1)
    elif isinstance(told, list):
        for at in range(min(len(told), 50)):
            yield told, at
            yield from _places(told[at], depth + 1)


def _torn(sample: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(sample))
    length = rng.choice((1, 1, 2, 4, 16, 64))
    kind = rng.randrange(6)
    if kind == 0:
        return sample[:at]
    if kind == 1:
        return sample[:at] + sample[at + length :]
    if kind == 2:
        return sample[:at] + sample[at : at + length] * rng.randint(2, 5) + sample[at + length :]
    if kind == 3:
        return sample[:at] + rng.choice(BYTES) + sample[at:]
    if kind == 4:
        return sample[:at] + rng.randbytes(length) + sample[at + length :]
    flipped = bytearray(sample or b"0")
    flipped[at % len(flipped)] ^= 1 << rng.randrange(8)
    return bytes(flipped)
