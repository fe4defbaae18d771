"""Times the layers of shapes.json on a GPU beside PyTorch (cuDNN), ONNX Runtime's WebGPU, ncnn, ggml, torchvulkan and
upstream grilly, in one run and in turns.

    make compare ARGS="[--device INDEX] [--only NAME…] [--peers NAME…] [--json FILE] [--chart FILE] …"

Peers are installed at first use, each into a folder of its own under ~/.cache/libgrilly/peers, PyTorch only where this
Python has none. A peer that cannot run is listed with its error, and the others go on. What each column times is said
in gpu_peers, a file each. On a software driver such as llvmpipe batches are reduced.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import datetime
import importlib.util
import json
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np
from common import (
    FORWARD, PASSES, WEIGHT_GRADIENT, Operands, Shape, cores, processor, reference, relative_error,
    shapes,
)
from compare_report import chart, progress, tables
from gpu_peers import (
    CALL, COPY, LAYER, LINK, ON_CPU, Settings, ggml_vulkan, moved_bytes, ncnn_vulkan, ours, pytorch, upstream, webgpu,
)
from worker import PeerError, Prepare, Worker, installed, time_in_turns


class Peer(NamedTuple):
    """A library, and the process that it gets."""

    name: str
    open: Callable[[Settings, int], tuple[str, Prepare]]
    #: What pip installs for it, the package itself first; nothing where this Python has it.
    requirements: tuple[str, ...]


OURS = Peer("libgrilly", ours.open_peer, ())
PEERS = (
    Peer("torch", pytorch.open_peer, ("torch==2.11.0",)),
    Peer("onnxruntime-webgpu", webgpu.open_peer, ("onnxruntime-webgpu==1.27.0", "onnx==1.23.2")),
    Peer("ncnn", ncnn_vulkan.open_peer, ("ncnn==1.0.20261020",)),
    Peer("cyllama-vulkan", ggml_vulkan.open_peer, ("cyllama-vulkan==0.7.0",)),
    # It was built for this PyTorch, and does not import beside an earlier one.
    Peer("torchvulkan", pytorch.open_torchvulkan, ("torchvulkan==0.2.1", "torch==2.13.0")),
    # What else it asks for, it runs without.
    Peer(
        "grilly", upstream.open_peer,
        ("grilly==0.3.0.20260207103851", "vulkan==1.3.275.1", "cffi==2.1.1", "pycparser==3.12", "--no-deps"),
    ),
)


class Column(NamedTuple):
    """A way to compute a pass, and the column of the tables that it fills."""

    title: str
    peer: str
    passes: tuple[str, ...]
    #: Variants of a pass that the peer offers: the fastest counts.
    variants: tuple[str, ...]
    #: The column of libgrilly that it is compared with.
    beside: str
    note: str


FP32, IEEE, FAST = (f"libgrilly {precision}" for precision in ours.PRECISIONS)
COLUMNS = (
    Column(FP32, OURS.name, PASSES, ("FP32",), FP32, "device's clock, weight raw with every call"),
    Column(IEEE, OURS.name, PASSES, ("IEEE",), FP32, "as before"),
    Column(FAST, OURS.name, PASSES, ("FAST",), FP32, "as before"),
    Column(
        "cuDNN fp32", "torch", PASSES, ("fp32 NCHW", "fp32 channels_last"), FP32,
        "PyTorch, CUDA events, weight raw, the better of NCHW and channels_last",
    ),
    Column("cuDNN TF32", "torch", PASSES, ("TF32 NCHW", "TF32 channels_last"), FAST, "as before"),
    Column(
        "ORT-WebGPU", "onnxruntime-webgpu", (FORWARD,), ("",), FP32,
        "tensors on the device, queued runs, mean from first call to last result",
    ),
    Column(
        "ncnn", "ncnn", (FORWARD,), ("",), FP32,
        "an image × batch, what further copies of the layer in a net take, Winograd for 3×3",
    ),
    Column(
        "ggml", "cyllama-vulkan", (FORWARD,), ("",), FP32,
        "tensors on the device, a graph of many copies, divided by their number, without bias",
    ),
    Column("torchvulkan", "torchvulkan", PASSES, ("",), FP32, "tensors on the device, queued calls, mean"),
    Column(
        "upstream", "grilly", PASSES, ("",), FP32,
        "NumPy to NumPy, of gradients part on the CPU, batches of up to 8 GFLOP scaled",
    ),
    Column(
        "upstream's dispatches", "grilly", (FORWARD,), (upstream.DISPATCHES,), FP32,
        "of those calls the time in its dispatches and the wait for them",
    ),
)

#: The layers of the seed's table, and the one that shows what a call costs.
SEED = "seed_resnet_small", "seed_resnet_large", "seed_depthwise", "seed_pointwise"
TINY = "tiny"
#: A layer of the size at which copies are timed for their bandwidth.
LARGE = "vgg"
#: More than the last cache of any GPU that we know holds half of, in bytes.
ROTATION = 96 << 20
#: A pass's operations at most on a software driver, as far as the batch can be reduced.
SOFTWARE_FLOPS = 1e9
#: A turn that takes longer, in seconds, is a peer's last at a pass.
LONG_TURN = 0.6


def main() -> None:
    options = arguments()
    report = merged(options.from_) if options.from_ else measured(options)
    print(tables(report, COLUMNS))
    if options.chart:
        chart(report, COLUMNS, options.chart)
        print(f"drawn in {options.chart}")


def merged(files: Sequence[Path]) -> dict[str, Any]:
    """Earlier runs on one device, of some layers each, as one."""
    report, *others = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    for other in others:
        if other["device"] != report["device"]:
            raise SystemExit(f"figures of {other['device']} do not belong with those of {report['device']}")
        for part in ("rows", "layers", "failures"):
            report[part] += other[part]
        report["peers"] |= other["peers"]
    return report


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Runs everything."""
    settings, device = chosen_device(options.device)
    report: dict[str, Any] = {
        "date": datetime.date.today().isoformat(), "device": device, "processor": processor(), "cores": cores(),
        "rounds": options.rounds, "seconds_a_turn": options.seconds, "software_driver": settings.software,
        "peers": {}, "columns": {column.title: column.note for column in COLUMNS}, "rows": [], "layers": [], "failures": [],
    }
    print("{device}; {processor}, cores: {cores}; {date}".format(**report))
    chosen = [reduced(shape, settings) for shape in shapes() if not options.only or shape.name in options.only]
    with contextlib.ExitStack() as stack:
        workers = opened(settings, options, report, stack)
        if OURS.name not in workers:
            raise SystemExit("there is nothing to compare with")
        comparison = Comparison(workers, options, report)
        executor = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1))
        for shape in chosen:
            began = time.perf_counter()
            comparison.compare(shape, executor)
            print(f"  {time.perf_counter() - began:.1f} s", flush=True)
            if options.json:
                write(report, options.json)
    if options.json:
        print(f"written to {options.json}")
    return report


def write(report: dict[str, Any], path: Path) -> None:
    """Replaces the file as a whole: a run may be stopped at any time."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [peer.name for peer in PEERS]
    parser.add_argument("--device", type=int, help="in Vulkan's order; default: as grilly chooses")
    parser.add_argument("--only", nargs="+", choices=[shape.name for shape in shapes()], help="layers; default: all")
    parser.add_argument("--peers", nargs="*", choices=names, default=names, help="default: all")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each library at each pass (default: 3)")
    parser.add_argument("--seconds", type=float, default=0.05, help="length of a turn (default: 0.05)")
    parser.add_argument("--patience", type=float, default=120, help="seconds that a peer gets for an answer (default: 120)")
    parser.add_argument("--packages", type=Path, help="peers are here, in folders of their names: install nothing")
    parser.add_argument("--json", type=Path, help="write the figures down, after every layer")
    parser.add_argument(
        "--from", dest="from_", nargs="+", type=Path, metavar="FILE",
        help="show the figures of earlier runs, of some of the layers each: their JSON",
    )
    parser.add_argument("--chart", type=Path, help="draw them: a .svg or .png; needs matplotlib")
    return parser.parse_args()


def chosen_device(index: int | None) -> tuple[Settings, str]:
    """The device to run on, and what it is called."""
    import grilly

    with grilly.Compute(index) as compute:
        device = compute.device
    if not device.is_vulkan:
        raise SystemExit(f"no Vulkan device was chosen ({device.note}); name one by --device")
    software = device.kind == "software"
    return Settings(device.index, software, 0 if software else ROTATION), f"{device.name} ({device.driver})"


def reduced(shape: Shape, settings: Settings) -> Shape:
    """With a batch that a software driver finishes within a second or so."""
    if not settings.software:
        return shape
    return dataclasses.replace(shape, n=min(max(1, int(SOFTWARE_FLOPS * shape.n / shape.flops)), shape.n))


def opened(
    settings: Settings, options: argparse.Namespace, report: dict[str, Any], stack: contextlib.ExitStack
) -> dict[str, Worker]:
    """The processes of the peers that start, by name; the report gets to know of all."""
    workers: dict[str, Worker] = {}
    for peer in (OURS, *(peer for peer in PEERS if peer.name in options.peers)):
        try:
            worker = Worker(
                partial(peer.open, settings), packages(peer, options.packages), cores(), pause=0,
                patience=options.patience,
            )
            stack.callback(worker.close)
            workers[peer.name] = worker
            state = {"version": worker.version}
        except PeerError as error:
            state = {"error": str(error)}
        report["peers"][peer.name] = state
        print(f"{peer.name}: {'; '.join(state.values())}", flush=True)
    return workers


def packages(peer: Peer, folder: Path | None) -> Path | None:
    """Where the peer's packages are, unless this Python has them."""
    if folder is not None and (folder / peer.name).is_dir():
        return folder / peer.name
    if not peer.requirements or peer.name == "torch" and importlib.util.find_spec("torch"):
        return None
    if folder is not None:
        raise PeerError(f"{folder / peer.name} does not exist")
    return installed(peer.requirements)


class Comparison:
    """The layers so far, in a report."""

    def __init__(self, workers: dict[str, Worker], options: argparse.Namespace, report: dict[str, Any]) -> None:
        self.workers = workers
        self.rounds, self.seconds = options.rounds, options.seconds
        self.report = report

    def compare(self, shape: Shape, executor: concurrent.futures.Executor) -> None:
        """Times every pass of a layer, and what else is asked of it."""
        exact = Exact(shape)
        warm = executor.submit(exact.prepare)
        self.loaded = self.load(shape)
        warm.result()
        for name in PASSES:
            row = self.row(shape, name, exact)
            self.report["rows"].append(row)
            print(progress(row), flush=True)
        if extras := self.extras(shape):
            self.report["layers"].append({"shape": shape.name, "batch": shape.n} | extras)
            print(f"  {shape.name}: " + ", ".join(f"{what} {ms:.4g}" for what, ms in extras.items()))

    def load(self, shape: Shape) -> dict[str, dict[str, Any]]:
        """What each peer offers for a layer; those that fail, nothing but why."""
        offers: dict[str, dict[str, Any]] = {}
        for name, worker in self.workers.items():
            try:
                worker.begin_load(shape)
            except PeerError as error:
                offers[name] = {"failure": str(error)}
        for name, worker in self.workers.items():
            if name not in offers:
                try:
                    worker.end_load()
                    offers[name] = worker.facts()
                except PeerError as error:
                    offers[name] = {"failure": str(error)}
        return offers

    def row(self, shape: Shape, name: str, exact: Exact) -> dict[str, Any]:
        """Errors and times of a pass."""
        figures: dict[str, dict[str, Any]] = {}
        contenders: dict[tuple[str, str], dict[str, Any]] = {}
        ours_fp32: np.ndarray | None = None
        for column in COLUMNS:
            if column.peer not in self.workers or name not in column.passes:
                continue
            offered = self.loaded[column.peer]
            if "failure" in offered:
                figures[column.title] = {"failure": offered["failure"]}
                continue
            for variant in column.variants:
                operation = f"{name}, {variant}" if variant else name
                if operation not in offered:
                    continue
                figure: dict[str, Any] = {"variant": variant, "column": column.title, **offered[operation]}
                try:
                    images = offered[operation].get("images", shape.n)
                    got = self.workers[column.peer].result(operation, exact.images(name, images))
                    if not np.isfinite(got).all():
                        raise PeerError("not every element of its result is a finite number")
                    figure["error"] = relative_error(got, exact.of(name, images))
                except (PeerError, ValueError) as error:
                    figures.setdefault(column.title, {"failure": str(error)})
                    continue
                if column.title == FP32:
                    ours_fp32 = got
                elif column.peer == OURS.name and np.array_equal(got, ours_fp32):
                    figures[column.title] = {"same": FP32}
                    continue
                contenders[column.peer, operation] = figure
        self.clock(contenders, figures)
        for column in COLUMNS:
            figure = figures.get(column.title, {})
            if same := figure.get("same"):
                figures[column.title] = {**figures[same], "same": same}
            elif "ms" in figure and "ms" in figures.get(column.beside, {}):
                figure["ratio"] = figure["ms"] / figures[column.beside]["ms"]
        row = {
            "shape": shape.name, "batch": shape.n, "pass": name, "gflop": shape.flops / 1e9,
            "bytes": 4 * sum(np.prod(size, dtype=int).item() for size in (shape.x, shape.weight, shape.y)),
            "figures": figures,
        }
        return row | self.copies(shape, name)

    def clock(self, contenders: dict[tuple[str, str], dict[str, Any]], figures: dict[str, dict[str, Any]]) -> None:
        """Times operations in turns; the fastest variant of a column is its figure."""
        turns = [(self.workers[peer], operation) for peer, operation in contenders]
        all_times = time_in_turns(turns, self.rounds, self.seconds, LONG_TURN)
        for figure, times in zip(contenders.values(), all_times):
            title = figure.pop("column")
            if times.failure:
                figures.setdefault(title, {"failure": times.failure})
                continue
            figure |= {"ms": 1e3 * times.median, "best_ms": 1e3 * times.best, "calls": len(times.seconds)}
            known = figures.get(title, {})
            if figure["ms"] < known.get("ms", float("inf")):
                figures[title] = {**figure, "other_ms": {**known.get("other_ms", {}), figure["variant"]: figure["ms"]}}
            else:
                known["other_ms"][figure["variant"]] = figure["ms"]

    def copies(self, shape: Shape, name: str) -> dict[str, Any]:
        """The time of a device copy of as many bytes as a depthwise layer moves, and of a large one."""
        if not (shape.groups == shape.c and name != WEIGHT_GRADIENT or shape.name == LARGE and name == FORWARD):
            return {}
        times = {f"{peer}_copy_ms": ms for peer, ms in self.medians(shape, COPY).items()}
        return times | {"copy_bytes": moved_bytes(shape) // 8 * 8}

    def extras(self, shape: Shape) -> dict[str, float]:
        """Milliseconds of what is not a pass on device tensors."""
        wanted = []
        if shape.name in (*SEED, TINY):
            wanted.append(LAYER)
        if shape.name in SEED:
            wanted += [LINK, ON_CPU]
        if shape.name == TINY:
            wanted.append(CALL)
        return {f"{peer}, {name}": ms for name in wanted for peer, ms in self.medians(shape, name).items()}

    def medians(self, shape: Shape, operation: str) -> dict[str, float]:
        """The milliseconds of an operation by peer, of those that have it and do not fail."""
        having = [peer for peer in self.workers if operation in self.loaded[peer]]
        turns = [(self.workers[peer], operation) for peer in having]
        times = time_in_turns(turns, self.rounds, self.seconds, LONG_TURN)
        for peer, of_peer in zip(having, times):
            if of_peer.failure:
                self.report["failures"].append(f"{peer}, {shape.name}, {operation}: {of_peer.failure}")
        return {peer: 1e3 * of_peer.median for peer, of_peer in zip(having, times) if not of_peer.failure}


class Exact:
    """A layer's results in float64: of the forward pass and the input gradient the first and the last image, of the
    weight gradient everything."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._known: dict[tuple[str, int], np.ndarray] = {}

    def prepare(self) -> None:
        self._operands = Operands.of(self.shape)
        for name in PASSES:
            self.of(name, self.shape.n)

    @staticmethod
    def images(name: str, n: int) -> Sequence[int] | None:
        """The images of a result to compare, of a batch of n."""
        return None if name == WEIGHT_GRADIENT else sorted({0, n - 1})

    def of(self, name: str, n: int) -> np.ndarray:
        """Of the first n images of the batch."""
        if (name, n) not in self._known:
            chosen = self.images(name, n) or range(n)
            x, weight, bias, dy = self._operands
            shape = dataclasses.replace(self.shape, n=len(chosen))
            operands = Operands(x[list(chosen)], weight, bias, dy[list(chosen)])
            self._known[name, n] = reference(shape, name, operands)
        return self._known[name, n]


if __name__ == "__main__":
    main()
