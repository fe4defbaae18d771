"""The example that trains a network, run as a user runs it."""

from __future__ import annotations

from pathlib import Path

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
