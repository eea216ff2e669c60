"""The settings an account ran with, kept beside its journal so that a change can be named."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bot4_runtime.settings import Settings, changes

SETTINGS: Final = "settings"
"""Folder, beside a journal, of the settings it ran with, each named by its hash."""


def keep_settings(folder: Path, settings: Settings) -> None:
    """Keep what shapes trading under its hash, so that a later change of it can be named."""
    kept = folder / SETTINGS / f"{settings.trading_hash()}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(settings.shaping(), encoding="utf-8")


def changes_since(folder: Path, before: str, settings: Settings) -> Sequence[str]:
    """Name what differs from the settings of a hash; nothing when they were not kept."""
    try:
        text = (folder / SETTINGS / f"{before}.json").read_text(encoding="utf-8")
        return changes(text, settings.shaping())
    except (OSError, ValueError):
        return ()  # begun by an older release, or the file was lost
