"""The example that trains a network, run as a user runs it."""

from __future__ import annotations

import os
from pathlib import Path

import grilly
from grilly.tests.checks import required

_PROGRAM = Path(__file__).resolve().parents[4] / "examples" / "python" / "train_digits.py"


def test_digits_are_learned_and_the_loss_is_pytorchs_at_every_step(python, tmp_path) -> None:
    for package in ("matplotlib", "sklearn", "tqdm", "torch"):
        required(package)
    picture = tmp_path / "digits.png"
    result = python(str(_PROGRAM), "--device", "cpu", "--compare-torch", "--output", str(picture))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "of the test images, at least 97% expected" in result.stdout
    assert "PyTorch     its loss differs by" in result.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_comparison_without_pytorch_says_what_to_install_before_any_training(python, tmp_path) -> None:
    required("tqdm")
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    path = os.pathsep.join([str(tmp_path), str(Path(grilly.__file__).parents[1])])
    result = python(str(_PROGRAM), "--device", "cpu", "--compare-torch", PYTHONPATH=path)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith("install it, for example: pip install torch")
    assert not result.stdout and "Traceback" not in result.stderr
