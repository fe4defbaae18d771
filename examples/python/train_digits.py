"""Train a small convolutional network to read handwritten digits, and draw how it learned.

The 1,797 images of 8 x 8 pixels come with scikit-learn. Convolutions and their gradients run on the device; the last
layer, the loss and the optimizer are a few lines of NumPy below. It fails if fewer than 97 % of the images that it
never saw are read correctly.

    python train_digits.py --output digits.png
    python train_digits.py --compare-torch      # PyTorch's training must give the same loss at every step
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Iterator, NamedTuple

import numpy as np
from tqdm import tqdm

import grilly
from grilly.nn import Conv2d, Flatten, Module, Parameter, Sequential, init

EPOCHS = 12
BATCH = 32
RATE = 0.05
MOMENTUM = 0.9
ACCURACY = 0.97
TOLERANCE = 1e-4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("digits.png"), help="the picture to write (digits.png)")
    parser.add_argument("--device", help="'cpu', or a number of `python -m grilly` (the best there is)")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights and of the images' order (0)")
    parser.add_argument("--compare-torch", action="store_true", help="train the same network with PyTorch, too")
    options = parser.parse_args()
    if options.compare_torch:
        try:
            import torch  # noqa: F401
        except ImportError as error:
            parser.error(f"--compare-torch needs PyTorch: {error}; install it, for example: pip install torch")

    device = int(options.device) if (options.device or "").isdigit() else options.device
    with grilly.Compute(device) as compute:
        print(f"device      {compute.device.name} ({compute.device.note})")
        grilly.manual_seed(options.seed)
        model = network(compute)
        learned, test = load()
        print(f"network     {sum(parameter.size for parameter in model.parameters())} parameters")
        print(f"images      {len(learned.labels)} to learn from, {len(test.labels)} to test with", flush=True)
        start = time.perf_counter()
        history = train(model, learned, test, options.seed)
        seconds = time.perf_counter() - start
        print(f"learned     {len(history.losses)} steps in {seconds:.1f} s, loss {np.mean(history.losses[-20:]):.2g}")
        print(f"accuracy    {history.accuracies[-1]:.2%} of the test images, at least {ACCURACY:.0%} expected")
        good = history.accuracies[-1] >= ACCURACY
        if options.compare_torch:
            difference = np.abs(np.subtract(history.losses, torch_losses(learned, options.seed))).max()
            print(f"PyTorch     its loss differs by {difference:.1e} at most, {TOLERANCE:g} allowed at every step")
            good &= bool(difference <= TOLERANCE)
        draw(options.output, model, test, history, compute.device.name)
    print(f"picture     {options.output}")
    return 0 if good else 1


def network(compute: grilly.Compute) -> Sequential:
    """`[N, 1, 8, 8]` images to `[N, 10]` scores."""
    return Sequential(
        Conv2d(1, 32, 3, padding=1, device=compute), SiLU(),
        Conv2d(32, 64, 3, stride=2, padding=1, device=compute), SiLU(),
        Conv2d(64, 64, 3, device=compute), SiLU(),
        Flatten(), Linear(64 * 2 * 2, 10),
    )


class SiLU(Module):
    """`x · sigmoid(x)`, as `torch.nn.SiLU`, in NumPy.

    It has no kink, as ReLU has. Where rounding moves a value across that, a gradient jumps, and trainings by two
    libraries part.
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.sigmoid = 1 / (1 + np.exp(-x))
        self.y = x * self.sigmoid
        return self.y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return dy * (self.sigmoid + self.y * (1 - self.sigmoid))


class Linear(Module):
    """`x · weightᵀ + bias`, as `torch.nn.Linear`, in NumPy."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = Parameter(np.empty((out_features, in_features), np.float32))
        self.bias = Parameter(np.empty(out_features, np.float32))
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        init.uniform_(self.bias, -1 / math.sqrt(in_features), 1 / math.sqrt(in_features))

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x = x
        return x @ self.weight.data.T + self.bias.data

    def backward(self, dy: np.ndarray) -> np.ndarray:
        self.weight.grad = dy.T @ self.x
        self.bias.grad = dy.sum(axis=0)
        return dy @ self.weight.data


def cross_entropy(scores: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean of -log softmax(scores)[label], and its gradient."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    right = np.arange(len(labels)), labels
    gradient = np.exp(logarithms)
    gradient[right] -= 1
    return float(-logarithms[right].mean()), gradient / np.float32(len(labels))


class Images(NamedTuple):
    """Images `[N, 1, 8, 8]`, from -1 (paper) to 1 (ink), and the digits that they show."""

    pixels: np.ndarray
    labels: np.ndarray

    def batches(self, seed: int, epoch: int) -> Iterator[Images]:
        """Every image once, in an order that follows from the seed and the epoch."""
        order = np.random.RandomState([seed, epoch]).permutation(len(self.labels))
        for start in range(0, len(order), BATCH):
            chosen = order[start:start + BATCH]
            yield Images(self.pixels[chosen], self.labels[chosen])


def load() -> tuple[Images, Images]:
    """The images to learn from, and every fifth to test with."""
    from sklearn.datasets import load_digits
    pixels, labels = load_digits(return_X_y=True)
    pixels = (pixels.reshape(-1, 1, 8, 8) / 8 - 1).astype(np.float32)
    tested = np.arange(len(labels)) % 5 == 0
    return Images(pixels[~tested], labels[~tested]), Images(pixels[tested], labels[tested])


class History(NamedTuple):
    """The loss of each step, and the accuracy before the first epoch and after each."""

    losses: list[float]
    accuracies: list[float]


def train(model: Sequential, learned: Images, test: Images, seed: int) -> History:
    """Gradient descent with momentum. Gradients go by hand from the loss back to the first layer."""
    history = History([], [accuracy(model, test)])
    velocities = [np.zeros_like(parameter.data) for parameter in model.parameters()]
    epochs = tqdm(range(EPOCHS), desc="learning", unit="epoch")
    for epoch in epochs:
        for batch in learned.batches(seed, epoch):
            loss, gradient = cross_entropy(model(batch.pixels), batch.labels)
            model.zero_grad()
            model.backward(gradient)
            for parameter, velocity in zip(model.parameters(), velocities):
                velocity *= MOMENTUM
                velocity += parameter.grad
                parameter -= rate(epoch) * velocity
            history.losses.append(loss)
        history.accuracies.append(accuracy(model, test))
        epochs.set_postfix(loss=f"{loss:.3f}", accuracy=f"{history.accuracies[-1]:.1%}")
    return history


def rate(epoch: int) -> float:
    """The learning rate of an epoch: it falls in even steps."""
    return RATE * (1 - epoch / EPOCHS)


def read(model: Sequential, images: Images) -> np.ndarray:
    """The digit that the network sees in each image."""
    model.eval()
    scores = model(images.pixels)
    model.train()
    return scores.argmax(axis=1)


def accuracy(model: Sequential, images: Images) -> float:
    """The part of the images that the network reads correctly."""
    return float(np.mean(read(model, images) == images.labels))


def torch_losses(learned: Images, seed: int) -> list[float]:
    """The losses of the same training by PyTorch: same network, same seed, same order of images."""
    import torch
    from torch import nn
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.SiLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.SiLU(),
        nn.Conv2d(64, 64, 3), nn.SiLU(),
        nn.Flatten(), nn.Linear(64 * 2 * 2, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    losses = []
    for epoch in tqdm(range(EPOCHS), desc="PyTorch", unit="epoch"):
        optimizer.param_groups[0]["lr"] = rate(epoch)
        for batch in learned.batches(seed, epoch):
            scores = model(torch.from_numpy(batch.pixels))
            loss = nn.functional.cross_entropy(scores, torch.from_numpy(batch.labels))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def draw(path: Path, model: Sequential, test: Images, history: History, device: str) -> None:
    """Writes the picture: how it learned, its filters, and what it reads."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    ink, accent, second = "#e8e6e3", "#f2a65a", "#5ab1f2"
    with pyplot.style.context(["dark_background", {"figure.facecolor": "#14161a", "axes.facecolor": "#14161a"}]):
        figure = pyplot.figure(figsize=(15, 8.8))
        figure.text(0.03, 0.948, "Learning to read digits", fontsize=23, weight="bold", color=ink)
        figure.text(
            0.03, 0.914, f"libgrilly on {device}: {history.accuracies[-1]:.1%} of {len(test.labels)} unseen images",
            fontsize=12, color="#9a9da5",
        )

        axes = figure.add_axes((0.06, 0.52, 0.52, 0.33))
        axes.semilogy(history.losses, color=accent, linewidth=0.8, alpha=0.5)
        steps = len(history.losses) // EPOCHS
        epochs = np.arange(EPOCHS + 1) * steps
        means = np.reshape(history.losses, (EPOCHS, steps)).mean(axis=1)
        axes.semilogy(epochs[1:] - steps / 2, means, "o-", color=accent, linewidth=2)
        axes.set_ylabel("loss of a step, mean of an epoch", color=accent)
        axes.set_xlabel("step")
        axes.set_xlim(0, epochs[-1])
        right = axes.twinx()
        right.plot(epochs, np.multiply(history.accuracies, 100), "o-", color=second, linewidth=2)
        right.set_ylabel("read correctly after an epoch, %", color=second)
        right.set_ylim(0, 102)

        filters = model[0].weight.data[:, 0]
        limit = np.abs(filters).max()
        grid = figure.add_gridspec(4, 8, left=0.66, right=0.97, top=0.85, bottom=0.52, wspace=0.1, hspace=0.1)
        for place, kernel in zip(grid, filters):
            axes = figure.add_subplot(place)
            axes.imshow(kernel, cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set_axis_off()
        figure.text(0.66, 0.865, "the filters of the first layer", fontsize=12, color=ink)

        found = read(model, test)
        # Those that it gets wrong first.
        order = np.argsort(found == test.labels, kind="stable")
        figure.text(0.03, 0.425, "test images and what it reads, mistakes first", fontsize=12, color=ink)
        grid = figure.add_gridspec(3, 16, left=0.03, right=0.97, top=0.385, bottom=0.03, wspace=0.15, hspace=0.35)
        for place, index in zip(grid, order):
            axes = figure.add_subplot(place)
            axes.imshow(test.pixels[index, 0], cmap="gray")
            right_one = found[index] == test.labels[index]
            title = str(found[index]) if right_one else f"{found[index]}, is {test.labels[index]}"
            axes.set_title(title, color=ink if right_one else accent, fontsize=11, pad=3)
            axes.set_axis_off()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
        pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
