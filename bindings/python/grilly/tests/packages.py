"""Packages that tests compare with."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def needed(name: str) -> Any:
    """The module of that name. Without it the test is skipped, but in CI it fails: nothing is skipped there."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI needs the package of {name}: {error}")
        pytest.skip(f"{name} is not installed")
