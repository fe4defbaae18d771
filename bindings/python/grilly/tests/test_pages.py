"""The programs of the pages in docs/, run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from grilly.tests.checks import required

_PAGES = Path(__file__).resolve().parents[4] / "docs"


@pytest.mark.usefixtures("compute")
@pytest.mark.parametrize("name, least", [("migrating-from-pytorch.md", 8), ("overlapping-calls.md", 1)])
def test_every_program_of_the_page_runs(name, least, tmp_path, monkeypatch) -> None:
    page = (_PAGES / name).read_text(encoding="utf-8")
    if "import torch" in page:
        required("torch").manual_seed(0)
    np.random.seed(0)
    monkeypatch.chdir(tmp_path)
    programs = list(re.finditer(r"^```python\n(.*?)^```", page, re.M | re.S))
    assert len(programs) == page.count("```python") >= least
    namespace = {"__name__": "__main__"}
    for program in programs:
        line = page.count("\n", 0, program.start(1))
        exec(compile("\n" * line + program[1], name, "exec"), namespace)
