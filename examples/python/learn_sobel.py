"""Filter a photograph with convolution layers, then learn one of the filters back.

First a blur, the two Sobel filters and a depthwise sharpening run over a photograph. Then a layer that starts from
random weights sees only an image and its Sobel images, and finds the two kernels by gradient descent through
`backward()`. The image is the photograph's fine detail, that is, what the blur took away: neighbouring pixels of the
photograph itself are so alike that gradient descent would need thousands of steps to tell them apart.

    python learn_sobel.py --output demo.png
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Iterator

import numpy as np

import grilly
from grilly.nn import Conv2d

SOBEL_X = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)
SOBEL = np.stack([SOBEL_X, SOBEL_X.T])
SHARPEN = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], np.float32)
BINOMIAL = np.array([1, 8, 28, 56, 70, 56, 28, 8, 1], np.float32) / 256

STEPS = 200
RATE = 0.6
TOLERANCE = 1e-2


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--output", type=Path, default=Path("demo.png"), help="the picture to write (demo.png)")
    output = arguments.parse_args().output

    device = grilly.default_compute().device
    print(f"device      {device.name} ({device.note})")
    photograph = load_photograph()
    gray = photograph @ np.array([0.299, 0.587, 0.114], np.float32)
    print(f"photograph  {photograph.shape[1]} x {photograph.shape[0]} pixels")

    blurred = filtered("blur", fixed_layer(np.outer(BINOMIAL, BINOMIAL)[None, None]), gray[None])[0]
    edges = filtered("sobel", fixed_layer(SOBEL[:, None]), gray[None])
    sharp = filtered("sharpen", fixed_layer(np.tile(SHARPEN, (3, 1, 1, 1)), groups=3), np.moveaxis(photograph, 2, 0))

    detail = gray - blurred
    detail /= detail.std()
    learned, losses, snapshots = learn(detail, fixed_layer(SOBEL[:, None])(detail[None]))
    found = learned.weight.data[:, 0]
    error = float(np.abs(found - SOBEL).max())
    print(f"kernels     {as_text(found)}")
    print(f"error       {error:.1e}, at most {TOLERANCE:g} expected")

    draw(output, {
        "photograph": photograph, "blurred": blurred, "sharp": np.moveaxis(sharp, 0, 2).clip(0, 1), "edges": edges,
        "learned": learned.eval()(gray[None]), "losses": losses, "snapshots": snapshots, "device": device.name,
    })
    print(f"picture     {output}")
    return 0 if error <= TOLERANCE else 1


def load_photograph() -> np.ndarray:
    """Grace Hopper, 1984 (public domain; comes with Matplotlib): `[height, width, 3]` in 0 to 1."""
    from matplotlib import cbook, image
    return image.imread(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).astype(np.float32) / 255


def fixed_layer(weight: np.ndarray, groups: int = 1) -> Conv2d:
    """A layer without bias that keeps the image's size, with a given weight `[K, C / groups, R, S]`."""
    kernels, channels, *size = weight.shape
    layer = Conv2d(channels * groups, kernels, tuple(size), padding="same", groups=groups, bias=False)
    layer.load_state_dict({"weight": weight})
    return layer.eval()


def filtered(name: str, layer: Conv2d, image: np.ndarray) -> np.ndarray:
    """Runs a layer, and prints the shapes and the time of a second run: the first one compiles."""
    layer(image)
    start = time.perf_counter()
    result = layer(image)
    milliseconds = (time.perf_counter() - start) * 1e3
    print(f"{name:<11} {image.shape} -> {result.shape} in {milliseconds:.1f} ms")
    return result


def learn(image: np.ndarray, edges: np.ndarray) -> tuple[Conv2d, list[float], dict[int, np.ndarray]]:
    """Finds the kernels that turn `image`, `[H, W]`, into `edges`, `[2, H, W]`.

    Returns:
        The layer, the loss of each step, and the kernels before some of them and at the end.
    """
    grilly.manual_seed(0)
    layer = Conv2d(1, len(edges), 3, padding="same", bias=False)
    losses, snapshots = [], {}
    start = time.perf_counter()
    for step in progress(STEPS):
        if step in (0, 5, 20, 60):
            snapshots[step] = layer.weight.data[:, 0].copy()
        difference = layer(image[None]) - edges
        losses.append(float(np.mean(np.square(difference))))
        layer.zero_grad()
        layer.backward(difference * (2 / difference.size))
        layer.weight -= RATE * layer.weight.grad
    snapshots[STEPS] = layer.weight.data[:, 0].copy()
    seconds = time.perf_counter() - start
    print(f"learned     {STEPS} steps in {seconds:.1f} s, loss {losses[0]:.3g} -> {losses[-1]:.3g}")
    return layer, losses, snapshots


def progress(steps: int) -> Iterator[int]:
    """Counts steps, with a bar on a terminal and a line for each quarter elsewhere."""
    terminal = sys.stdout.isatty()
    for step in range(steps):
        yield step
        done = step + 1
        if terminal:
            bar = "█" * (30 * done // steps)
            print(f"\rlearning    {bar:░<30} {done}/{steps}", end="" if done < steps else "\r\033[K", flush=True)
        elif done * 4 % steps < 4:
            print(f"learning    {done}/{steps}", flush=True)


def as_text(kernels: np.ndarray) -> str:
    """Kernels on three lines, side by side."""
    rows = ["   ".join("".join(f"{value:7.3f}" for value in kernel[row]) for kernel in kernels) for row in range(3)]
    return ("\n" + " " * 12).join(rows)


def draw(path: Path, content: dict) -> None:
    """Writes the picture."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    ink, paper, accent, second = "#e8e6e3", "#14161a", "#f2a65a", "#5ab1f2"
    style = {
        "figure.facecolor": paper, "axes.facecolor": paper, "text.color": ink, "axes.labelcolor": ink,
        "xtick.color": ink, "ytick.color": ink, "axes.edgecolor": "#4a4d55", "font.size": 11,
        "axes.titlesize": 12, "axes.titlepad": 8,
    }
    with pyplot.rc_context(style):
        figure = pyplot.figure(figsize=(15, 8.8))
        figure.text(0.03, 0.948, "Learning the Sobel filter back", fontsize=23, weight="bold")
        figure.text(0.03, 0.914, f"libgrilly on {content['device']}", fontsize=12, color="#9a9da5")
        top = figure.add_gridspec(1, 5, left=0.03, right=0.97, top=0.86, bottom=0.48, wspace=0.05)
        limit = float(np.abs(content["edges"]).max()) * 0.5

        def strength(edges: np.ndarray) -> np.ndarray:
            return np.hypot(*edges)

        edge_style = {"cmap": "magma", "vmin": 0, "vmax": limit * 1.4}
        pictures: list[tuple[str, np.ndarray, dict]] = [
            ("photograph", content["photograph"], {}),
            ("blur: 9×9 kernel", content["blurred"], {"cmap": "gray"}),
            ("sharpen: depthwise 3×3", content["sharp"], {}),
            ("Sobel: the two given kernels", strength(content["edges"]), edge_style),
            ("the two learned kernels", strength(content["learned"]), edge_style),
        ]
        for place, (title, picture, options) in zip(top, pictures):
            axes = figure.add_subplot(place)
            axes.imshow(picture, **options)
            axes.set_title(title)
            axes.set_axis_off()

        snapshots = content["snapshots"]
        bottom = figure.add_gridspec(2, 5, left=0.05, right=0.505, top=0.40, bottom=0.06, wspace=0.07, hspace=0.07)
        for row, name in enumerate(("horizontal", "vertical")):
            for column, (step, kernels) in enumerate(snapshots.items()):
                axes = figure.add_subplot(bottom[row, column])
                axes.imshow(kernels[row], cmap="RdBu_r", vmin=-2, vmax=2)
                for (y, x), value in np.ndenumerate(kernels[row]):
                    shade = ink if abs(value) > 1.2 else "#22252b"
                    number = f"{value:.2f}".replace("-0.00", "0.00")
                    axes.text(x, y, number, ha="center", va="center", color=shade, fontsize=9.5)
                axes.set_xticks([])
                axes.set_yticks([])
                if row == 0:
                    axes.set_title(f"step {step}" if step else "random start")
                if column == 0:
                    axes.set_ylabel(name)

        axes = figure.add_axes((0.565, 0.085, 0.405, 0.315))
        losses = np.asarray(content["losses"])
        axes.semilogy(losses, color=accent, linewidth=2)
        axes.fill_between(np.arange(len(losses)), losses, losses.min(), color=accent, alpha=0.12)
        for step in list(snapshots)[1:-1]:
            axes.plot(step, losses[step], "o", color=second, markersize=6)
            axes.annotate(f"step {step}", (step, losses[step]), (8, 6), textcoords="offset points", color=second)
        axes.set_xlim(0, len(losses) - 1)
        axes.set_title("mean squared error", loc="left")
        axes.set_xlabel("step")
        axes.grid(color="#2a2d34", linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
        pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
