"""What compare.py prints and draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Sequence

from common import PASSES, geometric_mean, line


def progress(row: dict[str, Any]) -> str:
    """A line for a pass that has been timed."""
    cells = []
    for title, figure in row["figures"].items():
        if "same" in figure:
            cells.append(f"{title} the same")
        elif "failure" in figure:
            cells.append(f"{title} failed ({figure['failure'][:60]})")
        else:
            cells.append(f"{title} {figure['ms']:.4g} ({figure['error']:.1e})")
    return f"{row['shape']} ({row['batch']}), {row['pass']}: " + ", ".join(cells)


def tables(report: dict[str, Any], columns: Sequence[Any]) -> str:
    """All that a report says, in Markdown."""
    titles = [column.title for column in columns]
    text = []
    for name in PASSES:
        rows = [row for row in report["rows"] if row["pass"] == name]
        shown = [title for title in titles if any("ms" in row["figures"].get(title, {}) for row in rows)]
        if not rows or not shown:
            continue
        text.append(f"\n{name.capitalize()}: ms (relative error; how many times as long as libgrilly)\n")
        table = [["layer", "batch", "GFLOP", *shown]]
        table += [
            [row["shape"], str(row["batch"]), f"{row['gflop']:.3f}", *(cell(row["figures"].get(title)) for title in shown)]
            for row in rows
        ]
        table.append(["geometric mean", "", "", *(mean(rows, title) for title in shown)])
        widths = [max(map(len, column)) for column in zip(*table)]
        text += [line(table[0], widths), line(["-" * width for width in widths], widths)]
        text += [line(cells, widths) for cells in table[1:]]
    text += copies(report["rows"]) + memory(report["rows"]) + layers(report["layers"])
    failures = [
        f"- {title}, {row['shape']}, {row['pass']}: {row['figures'][title]['failure']}"
        for row in report["rows"] for title in row["figures"] if "failure" in row["figures"][title]
    ]
    failures += [f"- {failure}" for failure in report["failures"]]
    failures += [f"- {name}: {state['error']}" for name, state in report["peers"].items() if "error" in state]
    if failures:
        text += ["\nCould not run:\n", *failures]
    return "\n".join(text)


def cell(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return ""
    if "failure" in figure:
        return "failed"
    if "same" in figure:
        return "same"
    ratio = f"; {figure['ratio']:.2f}" if "ratio" in figure else ""  # none where libgrilly failed
    return f"{figure['ms']:.4g} ({figure['error']:.0e}{ratio})"


def mean(rows: Sequence[dict[str, Any]], title: str) -> str:
    """The geometric mean of the ratios, and how many there are."""
    ratios = [row["figures"][title]["ratio"] for row in rows if "ratio" in row["figures"].get(title, {})]
    return f"{geometric_mean(ratios):.2f} of {len(ratios)}, least {min(ratios):.2f}" if ratios else ""


def copies(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Depthwise layers beside device copies of as many bytes."""
    text = []
    for row in rows:
        times = {name.removesuffix("_copy_ms"): ms for name, ms in row.items() if name.endswith("_copy_ms")}
        if not times:
            continue
        said = ", ".join(f"{peer} {ms:.4f} ms ({row['copy_bytes'] / ms / 1e6:.0f} GB/s)" for peer, ms in times.items())
        ours = row["figures"].get("libgrilly FP32", {})
        share = f"{min(times.values()) / ours['ms']:.0%} of the fastest copy; " if "ms" in ours else ""
        text.append(f"- {row['shape']}, {row['pass']}: {share}{said}")
    return ["\nDevice copies of as many bytes as input and output have:\n", *text] if text else []


def memory(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Scratch memory of libgrilly's passes, and what their first calls take."""
    text = []
    for row in rows:
        ours = row["figures"].get("libgrilly FP32", {})
        if "ms" not in ours:
            continue
        text.append(
            f"- {row['shape']}, {row['pass']}: {ours['tensor_bytes'] / 2**20:.1f} MiB of tensors and "
            f"{ours['workspace_bytes'] / 2**20:.1f} MiB of workspace; first call {ours['first_call_ms']:.1f} ms"
        )
    return ["\nDevice memory of a pass:\n", *text]


def layers(entries: Sequence[dict[str, Any]]) -> list[str]:
    if not entries:
        return []
    text = [
        f"- {entry['shape']}: " + ", ".join(f"{name} {ms:.4g} ms" for name, ms in entry.items() if isinstance(ms, float))
        for entry in entries
    ]
    return ["\nWhole calls:\n", *text]


def chart(report: dict[str, Any], columns: Sequence[Any], path: Path) -> None:
    """How many times as long as libgrilly everybody takes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    names = list(dict.fromkeys(row["shape"] for row in report["rows"]))
    titles = [
        column.title for column in columns
        if any("ratio" in row["figures"].get(column.title, {}) for row in report["rows"]) and column.peer != "libgrilly"
    ]
    figure, panels = pyplot.subplots(len(PASSES), figsize=(10, 9), sharex=True, layout="constrained")
    for panel, name in zip(panels, PASSES):
        rows = {row["shape"]: row["figures"] for row in report["rows"] if row["pass"] == name}
        for i, title in enumerate(titles):
            ratios = [(at, rows[shape][title]["ratio"]) for at, shape in enumerate(names)
                      if "ratio" in rows.get(shape, {}).get(title, {})]
            if ratios:
                panel.plot(*zip(*ratios), linestyle="none", marker="osD^vPX*"[i % 8], color=f"C{i}", markersize=6)
        panel.axhline(1, color="black", linewidth=1)
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}×"))
        panel.yaxis.set_minor_formatter(ticker.NullFormatter())
        panel.set_ylabel(name)
        panel.grid(alpha=0.3)
    handles = [
        pyplot.Line2D([], [], linestyle="none", marker="osD^vPX*"[i % 8], color=f"C{i}", label=title)
        for i, title in enumerate(titles)
    ]
    figure.legend(handles=handles, ncols=4, loc="outside lower center")
    panels[-1].set_xticks(range(len(names)), names, rotation=35, ha="right")
    figure.suptitle(f"Time of others ÷ time of libgrilly: above 1 libgrilly is faster\n{report['device']}, {report['date']}")
    figure.savefig(path, dpi=120)
