"""PyTorch on CUDA, where cuDNN computes, and on Vulkan, through torchvulkan.

On CUDA a call's time is that between two events around it. The calls are queued up behind one that only waits, so that
the device never waits for Python. On Vulkan it is the mean of calls that are queued up one behind the other."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any, Callable, Iterable

import numpy as np
from common import FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, Operands, Shape
from gpu_peers import CALL, COPY, LAYER, LINK, ON_CPU, QUEUED, Settings, by_clock, moved_bytes, queued, repeated
from worker import Operation, Prepare

#: Cycles of the call that only waits: long enough to queue the others.
HEAD_START = 4_000_000

LAYOUTS = {"NCHW": "contiguous_format", "channels_last": "channels_last"}
#: Whether cuDNN may round operands to TF32.
MODES = {"fp32": False, "TF32": True}


def open_peer(settings: Settings, threads: int) -> tuple[str, Prepare]:
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    torch.backends.cudnn.benchmark = True
    if not torch.cuda.is_available():
        raise RuntimeError("it finds no CUDA device")
    conv2d = torch.nn.functional.conv2d

    def prepare(shape: Shape, operands: Operands) -> dict[str, Operation]:
        torch.cuda.empty_cache()
        count = settings.sets(shape)
        operations: dict[str, Operation] = {}
        for layout, format_ in LAYOUTS.items():
            sets = [
                [moved(array, torch).contiguous(memory_format=getattr(torch, format_)) if array.ndim == 4
                 else moved(array, torch) for array in operands]
                for _ in range(count)
            ]
            for mode, allowed in MODES.items():
                for name, (call, result) in passes(torch, shape, sets).items():
                    def allowing(function: Callable[..., Any], *arguments: Any, allowed: bool = allowed) -> Any:
                        torch.backends.cudnn.allow_tf32 = allowed
                        return function(*arguments)

                    operations[f"{name}, {mode} {layout}"] = Operation(
                        call, partial(allowing, result), partial(allowing, by_events, torch, call)
                    )
        x, weight, bias, _ = (moved(array, torch) for array in operands)
        options = conv2d_options(shape)

        def exactly(*arguments: torch.Tensor) -> torch.Tensor:
            torch.backends.cudnn.allow_tf32 = False
            return conv2d(*arguments, *options)

        def layer() -> np.ndarray:
            return exactly(torch.from_numpy(operands.x).cuda(), weight, bias).cpu().numpy()

        def call() -> None:
            exactly(x, weight, bias)
            torch.cuda.synchronize()

        floats = moved_bytes(shape) // 8
        pairs = itertools.cycle([torch.ones(2, floats, device="cuda") for _ in range(count)])

        def copy() -> None:
            source, target = next(pairs)
            target.copy_(source)

        def array() -> np.ndarray:
            raise NotImplementedError

        on_cpu = partial(conv2d, *map(torch.from_numpy, operands[:3]), *options)
        link = both_ways(torch, shape)
        return operations | {
            COPY: Operation(copy, array, partial(by_events, torch, copy), {"bytes": 8 * floats}),
            LAYER: Operation(layer, layer, by_clock(layer)),
            CALL: Operation(call, array, by_clock(call)),
            LINK: Operation(link, array, by_clock(link)),
            ON_CPU: Operation(on_cpu, lambda: on_cpu().numpy(), by_clock(on_cpu)),
        }

    return f"{torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}", prepare


def open_torchvulkan(settings: Settings, threads: int) -> tuple[str, Prepare]:
    import torch
    import torchvulkan

    torch.set_grad_enabled(False)
    if not torchvulkan.device_count():
        raise RuntimeError("it finds no device")
    device = torch.device("vulkan", settings.device)

    def prepare(shape: Shape, operands: Operands) -> dict[str, Operation]:
        sets = [[torch.from_numpy(array).to(device) for array in operands] for _ in range(settings.sets(shape))]
        return {
            name: Operation(
                call, result, partial(repeated, queued(call, torchvulkan.synchronize, QUEUED))
            )
            for name, (call, result) in passes(torch, shape, sets).items()
        }

    return f"{torchvulkan.__version__} with PyTorch {torch.__version__}", prepare


def passes(torch: Any, shape: Shape, sets: Iterable[Any]) -> dict[str, tuple[Callable[[], Any], Callable[[], np.ndarray]]]:
    """The call of each pass, which goes round in the operands and in the memory of its results, and how to get at a
    result."""
    sets = list(sets)

    def going_round(function: Callable[..., Any]) -> Callable[[], Any]:
        turn = itertools.cycle(range(len(sets)))
        kept: list[Any] = [None] * len(sets)

        def call() -> Any:
            at = next(turn)
            kept[at] = function(*sets[at])
            return kept[at]

        return call

    def forward(x: Any, weight: Any, bias: Any, dy: Any) -> Any:
        return torch.nn.functional.conv2d(x, weight, bias, *conv2d_options(shape))

    def gradient(wanted: tuple[bool, bool, bool], x: Any, weight: Any, bias: Any, dy: Any) -> Any:
        *options, groups = conv2d_options(shape)
        return torch.ops.aten.convolution_backward(
            dy, x, weight, [shape.k], *options, False, [0, 0], groups, wanted
        )

    of = {
        FORWARD: (going_round(forward), lambda y: y),
        INPUT_GRADIENT: (going_round(partial(gradient, (True, False, False))), lambda gradients: gradients[0]),
        WEIGHT_GRADIENT: (going_round(partial(gradient, (False, True, True))), lambda gradients: gradients[1]),
    }
    return {name: (call, lambda call=call, which=which: which(call()).cpu().numpy()) for name, (call, which) in of.items()}


def conv2d_options(shape: Shape) -> tuple[list[int], list[int], list[int], int]:
    return [shape.stride] * 2, list(shape.padding), [shape.dilation] * 2, shape.groups


def moved(array: np.ndarray, torch: Any) -> Any:
    return torch.from_numpy(array).cuda()


def by_events(torch: Any, call: Callable[[], Any], seconds: float) -> list[float]:
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(QUEUED)]

    def sample() -> list[float]:
        torch.cuda._sleep(HEAD_START)
        for before, after in events:
            before.record()
            call()
            after.record()
        torch.cuda.synchronize()
        return [1e-3 * before.elapsed_time(after) for before, after in events]

    return repeated(sample, seconds)


def both_ways(torch: Any, shape: Shape) -> Callable[[], None]:
    """Copies between pinned memory and the device, of the input there and of the output back, at once."""
    pairs = []
    for size, up in ((shape.x, True), (shape.y, False)):
        host, device = torch.ones(size, pin_memory=True), torch.ones(size, device="cuda")
        pairs.append((torch.cuda.Stream(), *((device, host) if up else (host, device))))

    def call() -> None:
        for stream, target, source in pairs:
            with torch.cuda.stream(stream):
                target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()

    return call
