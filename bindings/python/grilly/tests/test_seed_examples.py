"""The examples of `seed_examples.md`, run as written: what they print, the values, and then the gradients."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grilly._reference import Reference
from grilly.nn import Conv1d, Conv2d
from grilly.tests.checks import check_backward, check_forward

_DOCUMENT = Path(__file__).with_name("seed_examples.md").read_text(encoding="utf-8")
EXAMPLES = [
    pytest.param(code, id=title.strip().lower().replace(" ", "_"))
    for section in _DOCUMENT.split("\n### ")[1:]
    for title, code in [re.match(r"(?:\d+\. )?(.+?)\n.*```python\n(.*?)^```", section, re.M | re.S).groups()]
]


class Recorder:
    """Notes every call of a layer while an example runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Conv2d, np.ndarray, np.ndarray]] = []
        for layer_type in (Conv1d, Conv2d):
            forward = layer_type.forward

            def recorded(layer: Conv2d, x: np.ndarray, forward: Any = forward) -> np.ndarray:
                y = forward(layer, x)
                self.calls.append((layer, x.copy(), y.copy()))
                return y

            monkeypatch.setattr(layer_type, "forward", recorded)


def promised(code: str) -> list[str]:
    """The shapes in the comments behind an example's print calls."""
    return re.findall(r"^print\(.*# (\([\d, ]+\))", code, re.M)


def test_all_eight_examples_are_here():
    assert len(EXAMPLES) == 8
    assert sum(len(promised(example.values[0])) for example in EXAMPLES) == 17


@pytest.mark.usefixtures("compute")
@pytest.mark.parametrize("code", EXAMPLES)
def test_example(code: str, rng, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    with monkeypatch.context() as patch:
        recorder = Recorder(patch)
        exec(compile(code, "seed_examples.md", "exec"), {"__name__": "__main__"})
    printed = re.findall(r": +(\([\d, ]+\))", capsys.readouterr().out)
    assert printed == promised(code)
    assert recorder.calls
    for layer, x, y in recorder.calls:
        check_forward(layer, x, y)
        layer(x)
        check_backward(layer, x, rng.standard_normal(y.shape).astype(np.float32))


@pytest.mark.usefixtures("compute")
def test_resnet_block_learns_by_hand(rng) -> None:
    """The block's value, and its gradients chained layer by layer, against float64."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(EXAMPLES[-1].values[0], "seed_examples.md", "exec"), namespace)
    block, x, output = namespace["model"], namespace["x"], namespace["output"]
    assert [name for name, _ in block.named_parameters()] == [
        "conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"
    ]
    reference = Reference(padding=((1, 1), (1, 1)))
    first, second = block.conv1, block.conv2
    hidden = reference.forward(x, first.weight.data, first.bias.data).value
    positive = np.maximum(hidden, 0)
    total = reference.forward(positive, second.weight.data, second.bias.data).value + x
    np.testing.assert_allclose(output, np.maximum(total, 0), rtol=1e-4, atol=1e-5)

    dy = rng.standard_normal(output.shape).astype(np.float32) * (output > 0)
    dpositive = second.backward(dy)
    dx = first.backward(dpositive * (hidden > 0)) + dy
    expected = reference.backward_input(dy, second.weight.data, x.shape).value * (hidden > 0)
    np.testing.assert_allclose(
        dx, reference.backward_input(expected, first.weight.data, x.shape).value + dy, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        first.weight.grad, reference.backward_weight(expected, x, (3, 3)).value, rtol=1e-4, atol=1e-3
    )
