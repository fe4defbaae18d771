"""libgrilly, by its C functions on tensors in device memory. The weight comes raw with every call; its packing is part
of the time, which is that between two timestamps of the device at the ends of a call's work, with calls queued up."""

from __future__ import annotations

import itertools
import time
from ctypes import byref, c_int64, pointer
from functools import partial
from typing import Callable, NamedTuple

import numpy as np
from common import FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, Operands, Shape
from gpu_peers import CALL, COPY, LAYER, QUEUED, Settings, by_clock, clocked, moved_bytes, repeated
from worker import Operation, Prepare

PRECISIONS = "FP32", "IEEE", "FAST"
#: What a ticket is waited for at most, in nanoseconds.
FOREVER = 2**64 - 1


class Function(NamedTuple):
    """A C function whose arguments are made once, and which goes round in them."""

    call: Callable[[], None]
    #: Gives its result.
    result: Callable[[], np.ndarray]
    #: Queues up calls, waits for them and gives the device's mean seconds of each.
    queue: Callable[[], list[float]]


def open_peer(settings: Settings, threads: int) -> tuple[str, Prepare]:
    import grilly
    from grilly import _abi, nn
    from grilly._errors import check
    from grilly._handle import Handle
    from grilly._operand import c_view

    compute = grilly.Compute(settings.device, timestamps=True)
    untimed = grilly.Compute(settings.device)  # for whole calls, which timestamps make longer
    context = compute._context.value
    stats = _abi.initialised(_abi.Stats)

    def statistic(name: str) -> int:
        check(_abi.lib.grilly_context_stats(context, byref(stats)))
        return getattr(stats, name)

    def timed(call) -> list[float]:
        if settings.software:
            return clocked(call)
        before = statistic("device_nanoseconds")
        call()
        return [1e-9 * (statistic("device_nanoseconds") - before)]

    def created(shape: Shape, precision: str, owner: grilly.Compute) -> Handle:
        desc = _abi.initialised(_abi.Conv2dDesc)
        desc.in_channels, desc.out_channels, desc.groups = shape.c, shape.k, shape.groups
        desc.kernel[:] = shape.kernel
        desc.stride[:], desc.dilation[:] = [shape.stride] * 2, [shape.dilation] * 2
        desc.padding_begin[:] = desc.padding_end[:] = shape.padding
        desc.precision = getattr(_abi, f"PRECISION_{precision}")
        create, destroy = _abi.lib.grilly_conv2d_create, _abi.lib.grilly_conv2d_destroy
        return Handle(create, owner._context.value, byref(desc), destroy=destroy)

    def prepare(shape: Shape, operands: Operands) -> dict[str, Operation]:
        count = settings.sets(shape)

        def tensors_of(owner: grilly.Compute) -> dict[str, list[grilly.Tensor]]:
            arrays = operands._asdict()
            sizes = {"y": shape.y, "dx": shape.x, "dweight": shape.weight, "dbias": (shape.k,)}
            inputs = {name: [grilly.tensor(array, owner) for _ in range(count)] for name, array in arrays.items()}
            return inputs | {name: [grilly.empty(size, owner) for _ in range(count)] for name, size in sizes.items()}

        def function(handle: Handle, which: str, names: str, tensors: dict[str, list[grilly.Tensor]]) -> Function:
            """A pass whose result is the last of the names."""
            *_, output = names.split()
            entry = getattr(_abi.lib, f"grilly_conv2d_{which}")
            submit = getattr(_abi.lib, f"grilly_conv2d_submit_{which}")
            every = []
            for at in range(count):
                io = _abi.initialised(_abi.Conv2dIo)
                for name in names.split():
                    setattr(io, name, pointer(c_view(tensors[name][at])))
                every.append(io)
            turn = itertools.cycle(every)

            def call() -> None:
                if entry(handle.value, byref(next(turn))) != _abi.OK:
                    raise RuntimeError(_abi.lib.grilly_last_error_message().decode())

            def result() -> np.ndarray:
                tensors[output][0].fill_(np.nan)
                check(entry(handle.value, byref(every[0])))
                return tensors[output][0].numpy()

            def queue() -> list[float]:
                before = statistic("device_nanoseconds")
                tickets = [_abi.Handle() for _ in range(QUEUED)]
                for ticket in tickets:
                    check(submit(handle.value, byref(next(turn)), byref(ticket)))
                for ticket in tickets:
                    check(_abi.lib.grilly_ticket_wait(ticket, FOREVER))
                    check(_abi.lib.grilly_ticket_destroy(ticket))
                return [1e-9 * (statistic("device_nanoseconds") - before) / QUEUED] * QUEUED

            return Function(call, result, queue)

        tensors = tensors_of(compute)

        def timed_pass(handle: Handle, which: str, names: str) -> Operation:
            """A pass, timed by the device's clock, and what its first call takes."""
            call, result, queue = function(handle, which, names, tensors)
            compute.trim()
            held, began = statistic("bytes_held"), time.perf_counter()
            call()
            facts = {
                "first_call_ms": 1e3 * (time.perf_counter() - began),
                "tensor_bytes": sum(tensors[name][0].nbytes for name in names.split()),
                "workspace_bytes": statistic("bytes_held") - held,
            }
            return Operation(call, result, by_clock(call) if settings.software else partial(repeated, queue), facts)

        operations: dict[str, Operation] = {}
        for precision in PRECISIONS:
            handle = created(shape, precision, compute)
            passes = {
                FORWARD: timed_pass(handle, "forward", "x weight bias y"),
                INPUT_GRADIENT: timed_pass(handle, "backward", "weight dy dx"),
                WEIGHT_GRADIENT: timed_pass(handle, "backward", "x dy dbias dweight"),
            }
            memory = _abi.initialised(_abi.Memory)
            check(_abi.lib.grilly_conv2d_memory(handle.value, (c_int64 * 4)(*shape.x), byref(memory)))
            for name, planned in zip(passes, ("forward", "backward_input", "backward_weight")):
                facts = passes[name].facts
                facts["workspace_bytes"] = max(facts["workspace_bytes"], getattr(memory, f"{planned}_workspace"))
                operations[f"{name}, {precision}"] = passes[name]
        whole = created(shape, PRECISIONS[0], untimed)
        call, result, _ = function(whole, "forward", "x weight bias y", tensors_of(untimed))
        operations[CALL] = Operation(call, result, by_clock(call))

        floats = moved_bytes(shape) // 8
        halves = [[grilly.tensor(np.ones(floats, np.float32), compute) for _ in range(count)] for _ in range(2)]
        # A view knows an address alone: its tensor goes with it.
        ends = itertools.cycle([(c_view(source), c_view(target), source, target) for source, target in zip(*halves)])

        def copy() -> None:
            source, target, *_ = next(ends)
            check(_abi.lib.grilly_elementwise(context, _abi.OP_COPY, byref(source), None, 1.0, byref(target)))

        operations[COPY] = Operation(
            copy, halves[1][0].numpy, lambda seconds: repeated(lambda: timed(copy), seconds), {"bytes": 8 * floats}
        )
        layer = nn.Conv2d(
            shape.c, shape.k, shape.kernel, shape.stride, shape.padding, shape.dilation, shape.groups, device=untimed
        )
        layer.eval().to(untimed)  # its parameters lie on the device, as PyTorch's do
        run = partial(layer, operands.x)
        operations[LAYER] = Operation(run, run, by_clock(run))
        return operations

    return f"{grilly.__version__} on {compute.device.name} ({compute.device.driver})", prepare
