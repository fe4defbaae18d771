"""How users run the tests: the command lines that the documentation names, the markers, and what may be missing."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from grilly.tests.checks import required

#: From `bindings/python`. Those that are over in seconds are run, the others collect their tests.
COMMANDS = {
    "all": "pytest grilly/tests/test_conv2d.py -v",
    "one": "pytest grilly/tests/test_conv2d.py::TestConv2dBasic::test_conv2d_forward_shape -v",
    "pytorch": "pytest grilly/tests/test_conv2d.py::TestConv2dVsPyTorch -v",
    "speed": "pytest grilly/tests/test_conv2d.py::TestConv2dPerformance -v --benchmark-only",
    "not_gpu": 'pytest grilly/tests/test_conv2d.py -m "not gpu" -v',
    "by_name": "pytest -k benchmark",
}
#: What those print that are run.
PRINTED = {
    "one": "::test_conv2d_forward_shape.* PASSED",
    "pytorch": "::test_conv2d_backward_correctness.* PASSED",
    "speed": "^test_conv2d_speedup_vs_cpu.* [0-9.]+ ",
}


def run(command: str, *options: str) -> str:
    """What a command line prints that succeeds."""
    _, *arguments = shlex.split(command)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, *options], cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - PRINTED.keys()))
def test_command_selects_tests(name):
    output = run(COMMANDS[name], "--collect-only", "-qqq")
    assert re.search(r"test_conv2d\.py: [1-9]", output), output


@pytest.mark.parametrize("name", PRINTED)
def test_command_runs_tests(name):
    if name != "one":
        required("torch")
    output = run(COMMANDS[name], "-p", "no:cacheprovider", "--benchmark-max-time=0.1")
    assert re.search(PRINTED[name], output, re.M) and "skipped" not in output, output


@pytest.mark.parametrize("marker", ["gpu", "benchmark"])
def test_markers_deselect(marker):
    collected = run(f'pytest grilly/tests/test_conv2d.py -m "not {marker}"', "--collect-only", "-q")
    assert "[cpu" in collected and "TestConv2dBasic" in collected
    assert {"gpu": "[vulkan", "benchmark": "::TestConv2dPerformance::"}[marker] not in collected


def test_a_package_that_tests_need_may_be_missing_but_not_in_ci(monkeypatch):
    for value in ("true", "1", "yes"):
        monkeypatch.setenv("CI", value)
        with pytest.raises(ImportError):
            required("no_such_package")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="needs no_such_package"):
        required("no_such_package")
