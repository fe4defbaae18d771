"""The C ABI of libgrilly (include/grilly.h): loading the library, and every ctypes declaration.

Nothing else in this package declares a structure or a function. Calls release the GIL (`ctypes.CDLL`).
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import (
    CFUNCTYPE, POINTER, Structure, c_char, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint32,
    c_uint64, c_void_p,
)
from pathlib import Path
from typing import TypeVar

DEVICE_AUTO = -1
DEVICE_CPU = -2
DEVICE_KINDS = ("discrete", "integrated", "virtual", "software", "other", "cpu")

CONTEXT_TIMESTAMPS = 2

DTYPE_F32 = 0
PRECISION_FP32, PRECISION_IEEE, PRECISION_FAST = range(3)
PADDING_ZEROS, PADDING_REFLECT, PADDING_REPLICATE, PADDING_CIRCULAR = range(4)

OP_COPY, OP_ADD, OP_SUBTRACT, OP_MULTIPLY, OP_DIVIDE, OP_MAXIMUM, OP_MINIMUM, OP_RELU_BACKWARD = range(8)

OK = 0
ERROR_INVALID_ARGUMENT = 1
ERROR_OUT_OF_HOST_MEMORY = 4
ERROR_OUT_OF_DEVICE_MEMORY = 5
ERROR_TIMEOUT = 11

LogFunction = CFUNCTYPE(None, c_void_p, c_int32, c_char_p)
Handle = c_void_p
Status = c_int32


class Tensor(Structure):
    """`grilly_tensor`: a view of host memory, or of a range of a buffer."""

    _fields_ = [
        ("struct_size", c_size_t), ("data", c_void_p), ("bytes", c_uint64), ("buffer", Handle),
        ("offset", c_uint64), ("dtype", c_int32), ("rank", c_int32), ("shape", c_int64 * 4), ("strides", c_int64 * 4),
    ]


class ContextDesc(Structure):
    """`grilly_context_desc`: what to open."""

    _fields_ = [
        ("struct_size", c_size_t), ("device", c_int32), ("flags", c_uint32), ("threads", c_uint32),
        ("reserved", c_uint32), ("memory_budget", c_uint64), ("log", LogFunction), ("log_user", c_void_p),
    ]


class DeviceInfo(Structure):
    """`grilly_device_info`."""

    _fields_ = [
        ("struct_size", c_size_t), ("index", c_uint32), ("kind", c_int32), ("vendor_id", c_uint32),
        ("device_id", c_uint32), ("driver_version", c_uint32), ("api_version", c_uint32), ("memory_bytes", c_uint64),
        ("name", c_char * 256), ("driver", c_char * 256), ("note", c_char * 512),
    ]


class Stats(Structure):
    """`grilly_stats`: what a context holds and has done."""

    _fields_ = [("struct_size", c_size_t)] + [
        (name, c_uint64)
        for name in (
            "bytes_held", "bytes_in_use", "bytes_peak", "blocks_in_use", "allocations", "upload_bytes",
            "download_bytes", "submits", "dispatches", "pipelines", "device_nanoseconds", "host_bytes_held",
        )
    ]


class Conv2dDesc(Structure):
    """`grilly_conv2d_desc`: a convolution. Pairs are (height, width)."""

    _fields_ = [
        ("struct_size", c_size_t), ("in_channels", c_int64), ("out_channels", c_int64), ("kernel", c_int64 * 2),
        ("stride", c_int64 * 2), ("padding_begin", c_int64 * 2), ("padding_end", c_int64 * 2),
        ("dilation", c_int64 * 2), ("groups", c_int64), ("output_padding", c_int64 * 2),
        ("precision", c_int32), ("padding_mode", c_int32), ("transposed", c_int32), ("reserved", c_int32),
    ]


class Conv2dIo(Structure):
    """`grilly_conv2d_io`: the tensors of one call."""

    _fields_ = [
        ("struct_size", c_size_t),
        *((name, POINTER(Tensor)) for name in ("x", "weight", "bias", "y", "dy", "dx", "dweight", "dbias")),
        ("prepared", Handle), ("flags", c_uint32), ("reserved", c_uint32),
    ]


class Memory(Structure):
    """`grilly_memory`: sizes in bytes of a convolution's tensors."""

    _fields_ = [("struct_size", c_size_t)] + [
        (name, c_uint64)
        for name in (
            "weight", "bias", "input", "output", "forward_workspace", "backward_input_workspace",
            "backward_weight_workspace",
        )
    ]


class PlanInfo(Structure):
    """`grilly_plan_info`."""

    _fields_ = [
        ("struct_size", c_size_t), ("workspace_bytes", c_uint64), ("dispatches", c_uint32), ("slices", c_uint32),
        ("seconds", c_double),
    ]


STRUCTURES = {
    "grilly_tensor": Tensor,
    "grilly_context_desc": ContextDesc,
    "grilly_device_info": DeviceInfo,
    "grilly_stats": Stats,
    "grilly_conv2d_desc": Conv2dDesc,
    "grilly_conv2d_io": Conv2dIo,
    "grilly_memory": Memory,
    "grilly_plan_info": PlanInfo,
}

#: Every function of the header: name → (result, arguments).
FUNCTIONS = {
    "grilly_tensor_init_host": (None, (POINTER(Tensor), c_size_t, c_void_p, c_uint64, c_int32, POINTER(c_int64))),
    "grilly_tensor_init_device": (None, (POINTER(Tensor), c_size_t, Handle, c_uint64, c_int32, POINTER(c_int64))),
    "grilly_buffer_create": (Status, (Handle, c_uint64, POINTER(Handle))),
    "grilly_buffer_create_host": (Status, (Handle, c_uint64, POINTER(Handle), POINTER(c_void_p))),
    "grilly_buffer_create_uninitialized": (Status, (Handle, c_uint64, POINTER(Handle))),
    "grilly_buffer_size": (Status, (Handle, POINTER(c_uint64))),
    "grilly_buffer_write": (Status, (Handle, c_uint64, c_void_p, c_uint64)),
    "grilly_buffer_read": (Status, (Handle, c_uint64, c_void_p, c_uint64)),
    "grilly_buffer_destroy": (Status, (Handle,)),
    "grilly_context_desc_init": (None, (POINTER(ContextDesc), c_size_t)),
    "grilly_context_create": (Status, (POINTER(ContextDesc), POINTER(Handle))),
    "grilly_context_device_info": (Status, (Handle, POINTER(DeviceInfo))),
    "grilly_stats_init": (None, (POINTER(Stats), c_size_t)),
    "grilly_context_stats": (Status, (Handle, POINTER(Stats))),
    "grilly_context_trim": (Status, (Handle,)),
    "grilly_context_destroy": (Status, (Handle,)),
    "grilly_conv2d_desc_init": (None, (POINTER(Conv2dDesc), c_size_t)),
    "grilly_conv2d_create": (Status, (Handle, POINTER(Conv2dDesc), POINTER(Handle))),
    "grilly_conv2d_output_shape": (Status, (Handle, POINTER(c_int64), POINTER(c_int64))),
    "grilly_conv2d_io_init": (None, (POINTER(Conv2dIo), c_size_t)),
    "grilly_conv2d_forward": (Status, (Handle, POINTER(Conv2dIo))),
    "grilly_conv2d_backward": (Status, (Handle, POINTER(Conv2dIo))),
    "grilly_conv2d_init_parameters": (Status, (Handle, c_uint64, POINTER(c_float), POINTER(c_float))),
    "grilly_memory_init": (None, (POINTER(Memory), c_size_t)),
    "grilly_conv2d_memory": (Status, (Handle, POINTER(c_int64), POINTER(Memory))),
    "grilly_conv2d_destroy": (Status, (Handle,)),
    "grilly_device_count": (Status, (POINTER(c_uint32),)),
    "grilly_device_info_init": (None, (POINTER(DeviceInfo), c_size_t)),
    "grilly_device_info_get": (Status, (c_uint32, POINTER(DeviceInfo))),
    "grilly_elementwise": (Status, (Handle, c_int32, POINTER(Tensor), POINTER(Tensor), c_float, POINTER(Tensor))),
    "grilly_conv2d_plan": (Status, (Handle, c_int32, POINTER(c_int64), c_uint32, POINTER(Handle))),
    "grilly_plan_info_init": (None, (POINTER(PlanInfo), c_size_t)),
    "grilly_plan_info_get": (Status, (Handle, POINTER(PlanInfo))),
    "grilly_plan_run": (Status, (Handle, POINTER(Conv2dIo), c_uint32, c_uint32)),
    "grilly_plan_destroy": (Status, (Handle,)),
    "grilly_conv2d_submit_forward": (Status, (Handle, POINTER(Conv2dIo), POINTER(Handle))),
    "grilly_conv2d_submit_backward": (Status, (Handle, POINTER(Conv2dIo), POINTER(Handle))),
    "grilly_ticket_wait": (Status, (Handle, c_uint64)),
    "grilly_ticket_destroy": (Status, (Handle,)),
    "grilly_version_string": (c_char_p, ()),
    "grilly_status_string": (c_char_p, (Status,)),
    "grilly_last_error_message": (c_char_p, ()),
    "grilly_weights_create": (Status, (Handle, POINTER(Tensor), POINTER(Handle))),
    "grilly_weights_destroy": (Status, (Handle,)),
}


def _candidates() -> list[Path]:
    """Where the library may be, best first: GRILLY_LIBRARY alone if set; this package; a checkout's build."""
    if chosen := os.environ.get("GRILLY_LIBRARY"):
        return [Path(chosen)]
    name = {"win32": "grilly.dll", "darwin": "libgrilly.dylib"}.get(sys.platform, "libgrilly.so")
    package = Path(__file__).resolve().parent
    places = [package / "lib" / name]
    repository = package.parents[2]
    if (repository / "Cargo.toml").is_file():
        target = Path(os.environ.get("CARGO_TARGET_DIR") or repository / "target")
        places.append(repository / target / "release" / name)
    return places


def _load() -> tuple[ctypes.CDLL, Path]:
    failures = []
    for path in _candidates():
        if not path.exists():
            failures.append(f"{path}: no such file")
            continue
        try:
            library = ctypes.CDLL(str(path))
            for name, (result, arguments) in FUNCTIONS.items():
                function = getattr(library, name)
                function.restype = result
                function.argtypes = arguments
            return library, path
        except (OSError, AttributeError) as error:
            failures.append(f"{path}: {error}")
    looked = "".join(f"\n  {failure}" for failure in failures)
    raise ImportError(
        f"libgrilly was not found. Looked at:{looked}\n"
        "Install the package with pip, build a checkout with `cargo build --release`, or set GRILLY_LIBRARY."
    )


lib, library_path = _load()


AnyStructure = TypeVar("AnyStructure", bound=Structure)


def initialised(structure: type[AnyStructure]) -> AnyStructure:
    """A structure as its `grilly_*_init()` fills it."""
    value = structure()
    _INITIALISERS[structure](ctypes.byref(value), ctypes.sizeof(value))
    return value


_INITIALISERS = {
    structure: getattr(lib, f"{name}_init") for name, structure in STRUCTURES.items() if structure is not Tensor
}


def version() -> str:
    """The library's version, for example "0.1.0"."""
    return lib.grilly_version_string().decode()
