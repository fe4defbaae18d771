"""The programs of docs/migrating-from-pytorch.md, run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from grilly.tests.checks import required

_PAGE = Path(__file__).resolve().parents[4] / "docs" / "migrating-from-pytorch.md"


@pytest.mark.usefixtures("compute")
def test_every_program_of_the_page_runs(tmp_path, monkeypatch) -> None:
    required("torch").manual_seed(0)
    np.random.seed(0)
    monkeypatch.chdir(tmp_path)
    page = _PAGE.read_text(encoding="utf-8")
    programs = list(re.finditer(r"^```python\n(.*?)^```", page, re.M | re.S))
    assert len(programs) == page.count("```python") >= 8
    namespace = {"__name__": "__main__"}
    for program in programs:
        line = page.count("\n", 0, program.start(1))
        exec(compile("\n" * line + program[1], str(_PAGE), "exec"), namespace)
