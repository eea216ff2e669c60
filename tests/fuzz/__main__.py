"""Fuzz the decoders: `python -m tests.fuzz [TARGET...] [--seconds S] [--plain] [--write]`.

Each target runs in a process of its own for S seconds, guided by coverage where atheris is
installed; where it is not, that is said, and messages are damaged without a guide (`--plain` asks
for this). A fault is printed with its message and fails the command. `--write` puts the numbers
into docs/fuzzing.md.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "fuzzing.md"
sys.path[:0] = [str(HERE), str(ROOT)]

from damage import damaged  # noqa: E402

MAX_BYTES = 65_536


class Count:
    """How often a target was tried, and what it raised."""

    def __init__(self, name: str, file: Path) -> None:
        self.name, self._file = name, file
        self.runs = self.read = 0
        self.faults: dict[str, str] = {}

    def take(self, target, message: bytes) -> None:
        self.runs += 1
        try:
            self.read += target.tried(message)
        except Exception as error:  # noqa: BLE001  what must not come is what is sought
            self.faults.setdefault(_place(error), f"{type(error).__name__}: {error} from {message[:500]!r}")  # fmt: skip

    def write(self) -> None:
        self._file.write_text(json.dumps({"runs": self.runs, "read": self.read, "faults": self.faults}))  # fmt: skip


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "bot4_" in frame.filename] or frames
    return f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"


def plain(name: str, seconds: float, file: Path) -> None:
    """Damage messages by chance."""
    from registry import TARGETS

    target, count = TARGETS[name], Count(name, file)
    rng = random.Random(time.time_ns())
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        count.take(target, damaged(rng.choice(target.seeds), rng))
    count.write()


def guided(name: str, seconds: float, file: Path) -> None:
    """Let atheris choose what is damaged next; never returns."""
    import atexit

    import atheris

    with atheris.instrument_imports(include=["bot4_runtime", "bot4_pipelines"]):
        from registry import TARGETS
    target, count = TARGETS[name], Count(name, file)
    end = time.monotonic() + seconds
    atexit.register(count.write)

    def one(message: bytes) -> None:
        if time.monotonic() >= end:
            count.write()
            os._exit(0)
        count.take(target, message)

    def mutated(message: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if not message or rng.random() < 0.02:
            message = rng.choice(target.seeds)
        changed = damaged(message, rng) if rng.random() < 0.7 else atheris.Mutate(message, most)
        return bytes(changed[:most])

    corpus = tempfile.mkdtemp(prefix="bot4-corpus-")
    for number, seed in enumerate(target.seeds):
        (Path(corpus) / str(number)).write_bytes(seed)
    atheris.Setup(
        [
            "fuzz",
            corpus,
            f"-max_len={MAX_BYTES}",
            "-verbosity=0",
            f"-artifact_prefix={corpus}/",
            "-rss_limit_mb=4096",
        ],
        one,
        custom_mutator=mutated,
    )
    atheris.Fuzz()


def run(name: str, seconds: float, *, by_chance: bool) -> dict:
    """Try a target in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "count.json"
        command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(seconds), "--count", str(file)]  # fmt: skip
        done = subprocess.run(
            [*command, "--plain"] if by_chance else command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not file.exists():
            told = (done.stdout + done.stderr)[-2_000:]
            return {"runs": 0, "read": 0, "faults": {f"the process ended with {done.returncode}": told}}  # fmt: skip
        return json.loads(file.read_text())


def write_page(results: dict[str, dict], seconds: float, *, by_chance: bool) -> None:
    """Put the numbers into the page, under what people wrote."""
    head = PAGE.read_text(encoding="utf-8").partition("<!-- numbers -->")[0]
    how = "by chance, without atheris" if by_chance else "guided by coverage (atheris)"
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, Python {sys.version.split()[0]}, {seconds:g} s a decoder, {how}.\n",
        "| decoder | messages tried | read | faults |",
        "| --- | ---: | ---: | ---: |",
        *(f"| `{name}` | {told['runs']:,} | {told['read']:,} | {len(told['faults'])} |" for name, told in results.items()),
        f"| all | {sum(told['runs'] for told in results.values()):,} | {sum(told['read'] for told in results.values()):,} | {sum(len(told['faults']) for told in results.values())} |",
    ]  # fmt: skip
    PAGE.write_text(f"{head}<!-- numbers -->\n" + "\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="TARGET", help="decoders; all by default")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each decoder")
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--write", action="store_true", help="into docs/fuzzing.md")
    parser.add_argument("--count", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count is not None:
        (plain if options.plain else guided)(options.names[0], options.seconds, options.count)
        return 0
    from registry import TARGETS

    unknown = sorted(set(options.names) - set(TARGETS))
    if unknown:
        parser.error(f"no decoder {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    by_chance = options.plain or find_spec("atheris") is None
    if by_chance and not options.plain:
        print("atheris is not installed (pip install atheris): messages are damaged by chance")
    results = {}
    for name in options.names or TARGETS:
        told = results[name] = run(name, options.seconds, by_chance=by_chance)
        print(f"{name}: {told['runs']:,} tried, {told['read']:,} read, {len(told['faults'])} faults", flush=True)  # fmt: skip
        for place, what in told["faults"].items():
            print(f"    {place}: {what}")
    if options.write:
        write_page(results, options.seconds, by_chance=by_chance)
    return int(any(told["faults"] for told in results.values()))


if __name__ == "__main__":
    sys.exit(main())
