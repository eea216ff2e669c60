"""Every command of the README is run by a test, and what it shows exists."""

import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Each command of the README's shell blocks, and the test that runs it.
RUN_BY = {
    "make demo": "tests/integration/test_demo.py::test_a_second_demo_starts_from_what_exists",
    "make test": "the run this test is part of",
    "make dev": "tests/integration/test_dagster_ui.py",
    ".venv/bin/bot4-runtime doctor": "test_the_commands_after_the_demo_do_what_the_readme_says",
    ".venv/bin/bot4-runtime replay": "test_the_commands_after_the_demo_do_what_the_readme_says",
    ".venv/bin/bot4-runtime start --account past --speed max --source recorded:DIR": (
        "test_the_commands_after_the_demo_do_what_the_readme_says"
    ),
    ".venv/bin/bot4-runtime status --account past": (
        "test_the_commands_after_the_demo_do_what_the_readme_says"
    ),
    ".venv/bin/bot4-runtime why --account past": (
        "test_the_commands_after_the_demo_do_what_the_readme_says"
    ),
    ".venv/bin/bot4-runtime fees --account past": (
        "test_the_commands_after_the_demo_do_what_the_readme_says"
    ),
    ".venv/bin/bot4-runtime verify --account past": (
        "test_the_commands_after_the_demo_do_what_the_readme_says"
    ),
    ".venv/bin/bot4-runtime halt --account past --reason TEXT": (
        "test_the_commands_after_the_demo_do_what_the_readme_says"
    ),
    ".venv/bin/bot4-runtime stress --candles DIR": (
        "test_the_commands_after_the_demo_do_what_the_readme_says"
    ),
    ".venv/bin/bot4-runtime rehearse --strategy drill": (
        "tests/runtime/rehearsal/test_rehearsal.py"
    ),
    ".venv/bin/bot4-runtime venue --market usdm": "tests/runtime/venue/test_command.py",
    ".venv/bin/bot4-pipelines models": "test_the_commands_after_the_demo_do_what_the_readme_says",
    ".venv/bin/bot4-pipelines keygen DIR": "tests/runtime/regime/test_signature.py",
    ".venv/bin/bot4-pipelines evaluate --candles DIR": (
        "test_the_commands_after_the_demo_do_what_the_readme_says"
    ),
}


def commands() -> list[str]:
    lines = [
        line.split("#")[0].strip()
        for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
        for line in block.splitlines()
    ]
    return [line for line in lines if line]


def test_every_command_is_known_to_a_test() -> None:
    assert set(commands()) == set(RUN_BY)
    for test in RUN_BY.values():
        path = test.split("::")[0]
        assert not path.startswith("tests/") or (ROOT / path).exists(), path


def test_every_picture_and_link_exists() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_make_alone_lists_the_targets_the_readme_and_the_rules_name() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True).stdout
    for target in [
        "setup",
        "demo",
        "test",
        "check",
        "bench",
        "crash",
        "soak",
        "mutation",
        "dev",
        "clean",
    ]:
        assert re.search(rf"^{target} ", listed, re.MULTILINE), target


def exported(demo, folder: Path) -> Path:
    """The candles of the test period and what warms it, as a folder of files."""
    import polars as pl

    from bot4_runtime.candles.store import CandleStore

    store = CandleStore(demo.home / "candles")
    since = demo.document["cuts"]["test_start_ms"] - 1_000 * 3_600_000
    folder.mkdir()
    for identity in store.list_series():
        series = store.read(identity, since)
        pl.DataFrame(
            {
                "timestamp": series.open_time_ms,
                **{n: getattr(series, n) for n in ("open", "high", "low", "close", "volume")},
            }
        ).write_parquet(folder / f"{identity.symbol}.parquet")
    return folder


@pytest.mark.slow
def test_the_commands_after_the_demo_do_what_the_readme_says(demo, tmp_path: Path) -> None:
    doctor = demo.runtime("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "verified" in doctor.stdout

    replay = demo.runtime("replay")
    assert replay.returncode == 0, replay.stderr
    assert "Report:" in replay.stderr

    folder = exported(demo, tmp_path / "candles")
    if demo.candles is not None:  # the models trade the market they were trained on
        past = ("--account", "past")
        start = demo.runtime("start", *past, "--speed", "max", "--source", f"recorded:{folder}")
        assert start.returncode == 0, start.stderr
        status = demo.runtime("status", *past)
        assert status.returncode == 0, status.stderr
        assert "State hash" in status.stdout
        for command in ("why", "fees", "verify"):
            told = demo.runtime(command, *past)
            assert told.returncode == 0, f"{command}: {told.stdout}{told.stderr}"
            assert told.stdout.strip()
        halt = demo.runtime("halt", *past, "--reason", "TEXT")
        assert halt.returncode == 0, halt.stderr
        assert "next start" in halt.stdout + halt.stderr

    stress = demo.runtime("stress", "--candles", str(folder))
    assert stress.returncode == 0, stress.stdout + stress.stderr
    assert "Report" in stress.stdout + stress.stderr

    models = demo.pipelines("models")
    assert models.returncode == 0, models.stderr

    since = datetime.fromtimestamp(demo.document["cuts"]["test_start_ms"] / 1000, UTC)
    evaluated = demo.pipelines("evaluate", "--candles", str(folder), "--since", since.isoformat())
    assert evaluated.returncode == 0, evaluated.stderr
    assert "lstm" in evaluated.stdout.lower()
