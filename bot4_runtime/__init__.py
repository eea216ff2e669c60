"""Bot4's trading process: loads the promoted models and trades, and never trains."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
"""ONNX Runtime reads it when it is imported, and sends usage data to Microsoft without it."""

__version__ = "0.1.0"

if os.environ.get("BOT4_INTERPRETED") == "1":
    from bot4_runtime.build import prefer_sources

    prefer_sources()
