"""ONNX Runtime sends usage data to Microsoft unless it is told not to before it is loaded."""

import os
import subprocess
import sys

import pytest

SILENCE = "ORT_DISABLE_TELEMETRY"


def asked(code: str) -> str:
    """Run code in a process of its own whose environment says nothing of telemetry."""
    silent = {name: value for name, value in os.environ.items() if name != SILENCE}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=silent, capture_output=True, text=True, check=True
    )
    return ended.stdout.strip()


@pytest.mark.parametrize("package", ["bot4_runtime", "bot4_pipelines"])
def test_a_package_silences_onnx_runtime_before_anything_can_load_it(package: str) -> None:
    code = (
        f"import {package}, os, sys; print('onnxruntime' in sys.modules, os.environ['{SILENCE}'])"
    )
    assert asked(code) == "False 1"


@pytest.mark.parametrize("package", ["bot4_runtime", "bot4_pipelines"])
def test_processes_that_it_starts_inherit_the_silence(package: str) -> None:
    child = f"import os; print(os.environ.get('{SILENCE}'))"
    code = (
        f"import {package}, subprocess, sys; "
        f"print(subprocess.check_output([sys.executable, '-c', {child!r}], text=True))"
    )
    assert asked(code) == "1"


def test_trading_without_models_never_loads_it() -> None:
    code = "import bot4_runtime.app, sys; print('onnxruntime' in sys.modules)"
    assert asked(code) == "False"
