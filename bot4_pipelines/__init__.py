"""Bot4's learning pipeline: candles in, checked regime models out. It never trades."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
"""ONNX Runtime reads it when it is imported, and sends usage data to Microsoft without it."""
