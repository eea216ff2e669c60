"""What the last runs of the steps left."""

from typing import Any

from bot4_pipelines.records import Folders, Records
from bot4_runtime.domain.candle import Origin


def summary(folders: Folders) -> dict[str, Any]:
    """Return what the last runs of the steps left, as JSON has it; None for what is not there."""
    records = Records(folders.work)
    candles = records.find("candles")
    models = {
        kind: record.numbers
        for kind in ("hmm", "lstm")
        if (record := records.find(f"{kind}_candidate")) is not None
    }
    evidence, promoted = records.find("evidence_records"), records.find("promoted_models")
    return {
        "candles": None if candles is None else candles.numbers,
        "simulated": candles is not None and candles.numbers["origin"] == Origin.SIMULATED.value,
        "cuts": next((model["cuts"] for model in models.values()), None),
        "models": models or None,
        "promoted": None if promoted is None else promoted.numbers,
        "evidence": None if evidence is None else evidence.numbers["rules"],
    }
