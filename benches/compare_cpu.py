"""Times the layers of shapes.json on the CPU device beside ONNX Runtime, PyTorch and ncnn, in one run and in turns.

    make compare-cpu ARGS="[--threads N] [--only NAME] [--json FILE] [--chart FILE] …"

Peers are installed at first use, each into a folder of its own under ~/.cache/libgrilly/peers (PyTorch's takes 5.4 GB:
its wheel does not import without NVIDIA's). A peer that cannot run is listed with its error, and the others go on.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
from pathlib import Path
from typing import Any, Callable, NamedTuple

import cpu_peers
from common import (
    FORWARD, PASSES, Operands, Shape, cores, geometric_mean, line, processor, reference, relative_error, shapes,
)
from cpu_peers import LAYER, TRAINED_LAYER
from worker import PeerError, Prepare, Worker, installed, time_in_turns


class Peer(NamedTuple):
    name: str
    open: Callable[[int], tuple[str, Prepare]]
    #: What pip installs for it, the package itself first.
    requirements: tuple[str, ...]
    passes: tuple[str, ...]
    note: str


OURS = Peer("libgrilly", cpu_peers.libgrilly, (), PASSES, "weight raw with every call")
PEERS = (
    Peer(
        "onnxruntime", cpu_peers.onnx_runtime, ("onnxruntime==1.32.0", "onnx==1.23.2"), (FORWARD,),
        "weight laid out when the model is loaded",
    ),
    Peer("torch", cpu_peers.pytorch, ("torch==2.15.0",), PASSES, "oneDNN, weight raw with every call"),
    Peer(
        "ncnn", cpu_peers.ncnn, ("ncnn==1.0.20261020",), (FORWARD,),
        "one image a call; Winograd for 3×3, in another class of accuracy; weight laid out when the model is loaded",
    ),
)
#: Batches of shapes.json that are a GPU's.
BATCHES = {"big": 4}
#: Layers for what Python adds to the C function: a tiny one, one of about a millisecond, one of many.
OVERHEAD = ("tiny", "conv1d", "seed_resnet_small")
OVERHEAD_ROUNDS = 25


def main() -> None:
    options = arguments()
    chosen = [dataclasses.replace(shape, n=BATCHES.get(shape.name, shape.n)) for shape in shapes()]
    chosen = [shape for shape in chosen if not options.only or shape.name in options.only]
    with contextlib.ExitStack() as stack:
        workers: dict[Peer, Worker] = {}
        report: dict[str, Any] = {
            "date": datetime.date.today().isoformat(), "processor": processor(), "cores": cores(),
            "threads": options.threads, "rounds": options.rounds, "seconds_a_turn": options.seconds, "peers": {},
        }
        print("{processor}, cores: {cores}, threads: {threads}, {date}".format(**report))
        for peer in (OURS, *(peer for peer in PEERS if peer.name in options.peers)):
            try:
                folder = installed(peer.requirements) if peer.requirements else None
                worker = Worker(peer.open, folder, options.threads, options.realtime)
                stack.callback(worker.close)
                workers[peer] = worker
                state = {"version": worker.version, "note": peer.note}
            except PeerError as error:
                state = {"error": str(error)}
            report["peers"][peer.name] = state
            print(f"{peer.name}: {'; '.join(state.values())}")
        if OURS not in workers:
            raise SystemExit("there is nothing to compare with")
        report["rows"] = compare(chosen, workers, options)
        report["means"] = means(report["rows"])
        report["layers"] = overhead(chosen, workers[OURS], options)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"\nwritten to {options.json}")
    if options.chart:
        chart(report, options.chart)
        print(f"drawn in {options.chart}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [peer.name for peer in PEERS]
    parser.add_argument("--threads", type=int, default=cores(), help="of every library; default: all cores")
    parser.add_argument("--only", nargs="+", choices=[shape.name for shape in shapes()], help="layers; default: all")
    parser.add_argument("--peers", nargs="*", choices=names, default=names, help="default: all")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each library at each pass (default: 5)")
    parser.add_argument("--seconds", type=float, default=0.1, help="length of a turn (default: 0.1)")
    parser.add_argument("--json", type=Path, help="write the figures down")
    parser.add_argument("--chart", type=Path, help="draw them: a .png or .svg; needs matplotlib")
    parser.add_argument(
        "--realtime", action="store_true",
        help="run at real-time priority, for a machine that others use; they get it half of the time; needs root",
    )
    return parser.parse_args()


def compare(chosen: list[Shape], workers: dict[Peer, Worker], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Times every pass of every layer, and prints a line of each: median and best milliseconds, relative error against
    float64, and how many times as long as libgrilly a peer takes."""
    others = [peer.name for peer in workers if peer is not OURS]
    cells = ["layer", "batch", "pass", "GFLOP", f"{OURS.name} ms (best)", "GFLOP/s", "error"]
    for name in others:
        cells += [f"{name} ms (best)", "error", "ratio"]
    widths = [max(len(cell), least) for cell, least in zip(cells, [17, 0, 15, 0, 17, 0, 7] + [17, 7, 5] * len(others))]
    print("\n" + line(cells, widths))
    print(line(["-" * width for width in widths], widths))
    rows = []
    for shape in chosen:
        loaded = {peer: attempt(worker.load, shape) for peer, worker in workers.items()}
        operands = Operands.of(shape)
        for name in PASSES:
            figures = judge(shape, name, operands, workers, loaded)
            clock(name, workers, figures, options)
            rows.append(
                {"shape": shape.name, "batch": shape.n, "pass": name, "gflop": shape.flops / 1e9, "figures": figures}
            )
            print(line(row_cells(rows[-1], others), widths), flush=True)
    for row in rows:
        for peer, figure in row["figures"].items():
            if "failure" in figure:
                print(f"{peer} failed at {row['shape']}, {row['pass']}: {figure['failure']}")
    return rows


def attempt(call: Callable[..., Any], *arguments: Any) -> Any:
    """What it gives, or why a peer could not."""
    try:
        return call(*arguments)
    except PeerError as error:
        return error


def judge(
    shape: Shape, name: str, operands: Operands, workers: dict[Peer, Worker], loaded: dict[Peer, Any]
) -> dict[str, dict[str, Any]]:
    """The relative error of a pass by peer, of those that have it; a peer that failed says why.

    Raises:
        SystemExit: if libgrilly failed.
    """
    exact = reference(shape, name, operands)
    figures: dict[str, dict[str, Any]] = {}
    for peer, worker in workers.items():
        if name in peer.passes:
            got = loaded[peer] or attempt(worker.result, name)
            failed = isinstance(got, PeerError)
            figures[peer.name] = {"failure": str(got)} if failed else {"error": relative_error(got, exact)}
    if "failure" in figures[OURS.name]:
        raise SystemExit(f"{OURS.name}, {shape.name}, {name}: {figures[OURS.name]['failure']}")
    return figures


def clock(name: str, workers: dict[Peer, Worker], figures: dict[str, Any], options: argparse.Namespace) -> None:
    """Adds times to the figures of a pass, and how many times as long as libgrilly each peer takes."""
    contenders = [peer for peer in workers if "error" in figures.get(peer.name, {})]
    times = time_in_turns([(workers[peer], name) for peer in contenders], options.rounds, options.seconds)
    ours = times[contenders.index(OURS)]
    for peer, time in zip(contenders, times):
        figures[peer.name] |= {
            "ms": 1e3 * time.median, "best_ms": 1e3 * time.best, "calls": len(time.seconds),
            "ratio": time.median / ours.median, "best_ratio": time.best / ours.best,
        }


def row_cells(row: dict[str, Any], others: list[str]) -> list[str]:
    def time_and_error(figure: dict[str, Any]) -> list[str]:
        return [f"{figure['ms']:.3f} ({figure['best_ms']:.3f})", f"{figure['error']:.1e}"]

    ours = row["figures"][OURS.name]
    time, error = time_and_error(ours)
    speed = row["gflop"] / ours["ms"] * 1e3
    cells = [row["shape"], str(row["batch"]), row["pass"], f"{row['gflop']:.3f}", time, f"{speed:.0f}", error]
    for name in others:
        figure = row["figures"].get(name)
        if figure is None:
            cells += ["", "", ""]
        elif "failure" in figure:
            cells += ["failed", "", ""]
        else:
            cells += [*time_and_error(figure), f"{figure['ratio']:.2f}"]
    return cells


def means(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Prints and gives the geometric means of the ratios by peer and pass, of medians and of best times."""
    print("\ngeometric means of the ratios, above 1 where libgrilly is faster (of the best times):")
    result: dict[str, dict[str, dict[str, float]]] = {}
    for peer in (peer.name for peer in PEERS):
        for name in PASSES:
            figures = {
                row["shape"]: row["figures"][peer] for row in rows
                if row["pass"] == name and "ratio" in row["figures"].get(peer, {})
            }
            if not figures:
                continue
            of = {key: geometric_mean(figure[key] for figure in figures.values()) for key in ("ratio", "best_ratio")}
            least = min(figures, key=lambda shape: figures[shape]["ratio"])
            result.setdefault(peer, {})[name] = of
            print(
                f"  {peer}, {name}: {of['ratio']:.2f} ({of['best_ratio']:.2f}) over {len(figures)} layers, "
                f"the least {figures[least]['ratio']:.2f} at {least}"
            )
    return result


def overhead(chosen: list[Shape], worker: Worker, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Times grilly.nn.Conv2d, NumPy in and NumPy out, beside the C function that it calls."""
    operations = FORWARD, LAYER, TRAINED_LAYER
    rows = []
    for shape in chosen:
        if shape.name not in OVERHEAD:
            continue
        worker.load(shape)
        times = time_in_turns([(worker, name) for name in operations], OVERHEAD_ROUNDS, options.seconds / 5)
        c, layer, trained = (1e3 * time.median for time in times)
        rows.append({"shape": shape.name, "c_ms": c, "layer_ms": layer, "trained_layer_ms": trained})
        print(
            f"\n{shape.name}: C function {c:.4f} ms; layer from NumPy to NumPy {layer:.4f} ms ({layer / c - 1:+.1%}), "
            f"in training mode, which keeps the input, {trained:.4f} ms ({trained / c - 1:+.1%})",
            end="",
        )
    print()
    return rows


def chart(report: dict[str, Any], path: Path) -> None:
    """Bars of the ratios: how many times as long as libgrilly each peer takes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    names = list(dict.fromkeys(row["shape"] for row in report["rows"]))
    figure, panels = pyplot.subplots(len(PASSES), figsize=(12, 9), sharex=True, sharey=True, layout="constrained")
    peers = [peer.name for peer in PEERS if "version" in report["peers"].get(peer.name, {})]
    for panel, name in zip(panels, PASSES):
        rows = [row for row in report["rows"] if row["pass"] == name]
        for i, peer in enumerate(peers):
            ratios = [row["figures"].get(peer, {}).get("ratio") for row in rows]
            bars = [(at + 0.25 * (i - 1), ratio) for at, ratio in enumerate(ratios) if ratio]
            if bars:
                at, heights = zip(*bars)
                panel.bar(at, [height - 1 for height in heights], 0.25, bottom=1, color=f"C{i}", label=peer)
        panel.axhline(1, color="black", linewidth=1)
        panel.set_yscale("log", base=2)
        panel.set_ylabel(f"{name}\ntime ÷ libgrilly's")
        panel.grid(axis="y", alpha=0.3)
    panels[0].yaxis.set_major_locator(ticker.LogLocator(base=2, numticks=20))
    panels[0].yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    panels[0].legend(ncols=len(peers), loc="upper left")
    panels[-1].set_xticks(range(len(names)), names, rotation=30, ha="right")
    figure.suptitle("Above the line libgrilly is faster. {processor}, threads: {threads}, {date}".format(**report))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
