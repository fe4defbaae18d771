"""Cases of `tests/cases.json`, the table that all languages share: forward and gradients within the contract."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import grilly
from grilly import Compute
from grilly._reference import Reference
from grilly.tests.checks import options_of

_TABLE = Path(__file__).resolve().parents[4] / "tests" / "cases.json"
if not _TABLE.is_file():
    pytest.skip(f"{_TABLE} is only in a checkout of the repository", allow_module_level=True)
TABLE = json.loads(_TABLE.read_text(encoding="utf-8"))
# The library's own tests take the whole table.
STEP = 1 if os.environ.get("GRILLY_TEST_ALL") == "1" else 3


def named(cases: list[dict[str, Any]]) -> list:
    return [pytest.param(case, id=case["name"]) for case in cases]


def reference_of(case: dict[str, Any]) -> Reference:
    padding = tuple(map(tuple, case["padding"]))
    return Reference(
        tuple(case["stride"]), padding, tuple(case["dilation"]), case["groups"], case.get("padding_mode", "zeros"),
        case.get("transposed", False), tuple(case.get("output_padding", (0, 0))),
    )


def test_the_table_has_cases():
    assert len(TABLE["cases"]) > 100 and len(TABLE["errors"]) > 20


@pytest.mark.parametrize("case", named(TABLE["cases"][::STEP]))
def test_case(compute: Compute, case: dict[str, Any]) -> None:
    rng = np.random.RandomState(sum(map(ord, case["name"])))
    reference, conv = reference_of(case), compute.conv
    x_shape = tuple(case[axis] for axis in "nchw")
    outer, inner = (case["c"], case["k"]) if reference.transposed else (case["k"], case["c"])
    w_shape = (outer, inner // case["groups"], *case["kernel"])
    x, w, b, dy = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in (x_shape, w_shape, (case["k"],), reference.output_shape(x_shape, w_shape))
    )
    b, options = b if case["bias"] else None, options_of(reference)

    assert reference.forward(x, w, b).worst(conv.conv2d(x, w, b, **options)) <= 1
    dx = conv.conv2d_backward_input(dy, w, x_shape, **options)
    assert reference.backward_input(dy, w, x_shape).worst(dx) <= 1
    dw, db = conv.conv2d_backward_weight(dy, x, case["kernel"], **options, has_bias=case["bias"])
    assert reference.backward_weight(dy, x, tuple(case["kernel"])).worst(dw) <= 1
    if case["bias"]:
        assert reference.backward_bias(dy).worst(db) <= 1
    else:
        assert db is None


@pytest.mark.parametrize("case", named(TABLE["errors"]))
def test_error(compute: Compute, case: dict[str, Any]) -> None:
    """A spoilt case is refused with the library's own words, before anything of its size is allocated."""
    reference = reference_of(case)
    with pytest.raises(grilly.GrillyError) as caught:
        operation = compute.conv._operation(
            case["in_channels"], case["k"], case["kernel"], *options_of(reference).values()
        )
        compute.conv._output_shape(operation, [case[axis] for axis in "nchw"])
    assert caught.value.name == f"GRILLY_ERROR_{case['status']}"
    assert case["message"] in str(caught.value)
