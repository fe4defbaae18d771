"""`_abi.py` says what `include/grilly.h` says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from grilly import _abi

_HEADER = Path(__file__).resolve().parents[4] / "include" / "grilly.h"
if not _HEADER.is_file():
    pytest.skip(f"{_HEADER} is only in a checkout of the repository", allow_module_level=True)
#: Without comments.
HEADER = re.sub(r"/\*.*?\*/", "", _HEADER.read_text(encoding="utf-8"), flags=re.S)


def header_structures() -> dict[str, list[str]]:
    """Fields of every structure of the header, in order."""
    found = {}
    for body, name in re.findall(r"typedef struct \{(.*?)\} (grilly_\w+);", HEADER, re.S):
        found[name] = re.findall(r"(\w+)(?:\[\d+\])?;", body)
    return found


def test_structures_have_the_headers_fields_in_order():
    ours = {name: [field for field, _ in structure._fields_] for name, structure in _abi.STRUCTURES.items()}
    assert ours == header_structures()


def test_functions_are_those_of_the_header():
    prototypes = re.findall(r"^[\w ]+?[ *](grilly_\w+)\(([^;]*)\);", HEADER, re.M)
    arguments = {name: 0 if text.strip() == "void" else text.count(",") + 1 for name, text in prototypes}
    assert arguments == {name: len(types) for name, (_, types) in _abi.FUNCTIONS.items()}


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_sizes_and_offsets_are_those_of_the_c_compiler(tmp_path):
    lines = []
    for name, structure in _abi.STRUCTURES.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        for field, _ in structure._fields_:
            lines.append(
                f'printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}), sizeof((({name} *)0)->{field}));'
            )
    source = tmp_path / "layout.c"
    body = "\n".join(lines)
    source.write_text(f'#include <stdio.h>\n#include "grilly.h"\nint main(void) {{\n{body}\nreturn 0;\n}}\n')
    program = tmp_path / "layout"
    subprocess.run(["cc", "-I", str(_HEADER.parent), str(source), "-o", str(program)], check=True)
    theirs = subprocess.run([str(program)], check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout

    ours = []
    for name, structure in _abi.STRUCTURES.items():
        ours.append(f"{name} {_abi.ctypes.sizeof(structure)}")
        for field, _ in structure._fields_:
            place = getattr(structure, field)
            ours.append(f"{name}.{field} {place.offset} {place.size}")
    assert ours == theirs.splitlines()


@pytest.mark.parametrize("ours", [
    "OK", "CONTEXT_TIMESTAMPS", "DEVICE_AUTO", "DEVICE_CPU", "DTYPE_F32",
    "PRECISION_FP32", "PRECISION_IEEE", "PRECISION_FAST",
    "OP_COPY", "OP_ADD", "OP_SUBTRACT", "OP_MULTIPLY", "OP_DIVIDE", "OP_MAXIMUM", "OP_MINIMUM", "OP_RELU_BACKWARD",
    "PADDING_ZEROS", "PADDING_REFLECT", "PADDING_REPLICATE", "PADDING_CIRCULAR",
    "ERROR_INVALID_ARGUMENT", "ERROR_OUT_OF_HOST_MEMORY", "ERROR_OUT_OF_DEVICE_MEMORY",
])
def test_constants_are_those_of_the_header(ours):
    value = re.search(rf"#define GRILLY_{ours} (-?\d+)", HEADER)
    assert int(value.group(1)) == getattr(_abi, ours)


def test_device_kinds_are_those_of_the_header():
    kinds = re.findall(r"#define GRILLY_DEVICE_KIND_(\w+) (\d+)", HEADER)
    assert [name.lower() for name, _ in sorted(kinds, key=lambda kind: int(kind[1]))] == list(_abi.DEVICE_KINDS)


def test_initialisers_set_the_size_that_python_knows():
    for structure in _abi.STRUCTURES.values():
        if structure is not _abi.Tensor:
            assert _abi.initialised(structure).struct_size == _abi.ctypes.sizeof(structure)
