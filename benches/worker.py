"""A library in a process of its own, so that libraries whose packages clash can be timed in turns.

The process makes its operands itself; times and results come back through a pipe.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np
from common import Operands, Shape

#: Thread pools spin for up to 20 ms after their work, and would take a core from whoever comes next.
PAUSE = 0.05


class Operation(NamedTuple):
    """A pass of a layer, ready to run."""

    #: What is timed.
    call: Callable[[], Any]
    #: Runs it and gives its result.
    result: Callable[[], np.ndarray]


#: Takes a layer and its operands; gives its operations by name.
Prepare = Callable[[Shape, Operands], "dict[str, Operation]"]


class PeerError(Exception):
    """A peer could not be installed, imported or run."""


@dataclass
class Times:
    """Seconds of single calls."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        return min(self.seconds)


class Worker:
    """A peer's process.

    Args:
        open_peer: called there with the number of threads; gives the peer's version and its `Prepare`.
        folder: where the peer's packages are, beside those of this Python; None if they are among them.
        threads: how many the peer may use.
        realtime: run before everything else on this machine; needs the right to (root, or CAP_SYS_NICE).

    Raises:
        PeerError: if it does not start. So does every method if the peer fails, or has ended.
    """

    def __init__(
        self, open_peer: Callable[[int], tuple[str, Prepare]], folder: Path | None, threads: int, realtime: bool
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, open_peer), daemon=True)
        self._process.start()
        theirs.close()
        self.realtime = realtime
        try:
            self.version: str = self._ask("start", folder, threads, realtime)
        except PeerError:
            self.close()
            raise

    def load(self, shape: Shape) -> None:
        """Prepares a layer, in place of the one before."""
        self._ask("load", shape)

    def result(self, name: str) -> np.ndarray:
        """Runs an operation of the layer that was loaded."""
        return self._ask("result", name)

    def turn(self, name: str, seconds: float) -> list[float]:
        """The seconds of each call of an operation, repeated for about so long, at least once."""
        began = time.perf_counter()
        times = self._ask("turn", name, seconds)
        # At real-time priority, others get the machine for as long as it was taken from them.
        time.sleep(max(PAUSE, time.perf_counter() - began if self.realtime else 0))
        return times

    def close(self) -> None:
        self._process.kill()
        self._process.join()

    def _ask(self, *request: Any) -> Any:
        try:
            self._connection.send(request)
        except OSError:
            pass  # it has ended, as `recv` will say
        try:
            answer, value = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise PeerError(f"its process ended with exit code {self._process.exitcode}") from None
        if answer == "error":
            raise PeerError(value)
        return value


def time_in_turns(contenders: Sequence[tuple[Worker, str]], rounds: int, seconds: float) -> list[Times]:
    """Times operations in turns, so that whatever else the machine does meets all of them alike."""
    times = [Times() for _ in contenders]
    for first in range(rounds):
        for i in range(len(contenders)):
            turn = (first + i) % len(contenders)
            worker, name = contenders[turn]
            times[turn].seconds += worker.turn(name, seconds)
    return times


def install(requirements: Sequence[str], folder: Path) -> None:
    """Installs packages into a folder of their own, unless it is there.

    Raises:
        PeerError: with what pip said.
    """
    if folder.is_dir():
        return
    print(f"installing into {folder}: {' '.join(requirements)}", flush=True)
    unfinished = folder.with_name(folder.name + ".unfinished")
    # A virtual environment may lack pip: the one of the Python that made it installs for it.
    command = ["python3", "-m", "pip", "--python", sys.executable, "install", "--quiet", "--disable-pip-version-check"]
    command += ["--root-user-action=ignore", "--upgrade", "--target", str(unfinished), *requirements]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise PeerError(f"pip: {done.stderr.strip().splitlines()[-1]}")
    unfinished.rename(folder)


def _serve(connection: Connection, open_peer: Callable[[int], tuple[str, Prepare]]) -> None:
    """Answers a `Worker`'s requests, in its process."""
    operations: dict[str, Operation] = {}
    prepare: Prepare

    def start(folder: Path | None, threads: int, realtime: bool) -> str:
        nonlocal prepare
        if realtime:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))  # which threads inherit
        os.environ["OMP_NUM_THREADS"] = str(threads)
        if folder is not None:
            sys.path.append(str(folder))
        version, prepare = open_peer(threads)
        return version

    def load(shape: Shape) -> None:
        operations.clear()
        operations.update(prepare(shape, Operands.of(shape)))

    def result(name: str) -> np.ndarray:
        return operations[name].result()

    def turn(name: str, seconds: float) -> list[float]:
        call = operations[name].call
        call()  # the caches are full of another's data
        times: list[float] = []
        until = time.perf_counter() + seconds
        while not times or time.perf_counter() < until:
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        return times

    methods = {method.__name__: method for method in (start, load, result, turn)}
    while True:
        name, *arguments = connection.recv()
        try:
            answer = "value", methods[name](*arguments)
        except Exception as error:
            answer = "error", f"{type(error).__name__}: {error}"
        connection.send(answer)
