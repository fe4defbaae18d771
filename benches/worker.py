"""A library in a process of its own, so that libraries whose packages clash can be timed in turns.

The process makes its operands itself; times and results come back through a pipe.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Callable, Mapping, NamedTuple, Optional, Sequence

import numpy as np
from common import Operands, Shape

#: Thread pools spin for up to 20 ms after their work, and would take a core from whoever comes next.
PAUSE = 0.05
#: A peer that so many times gave no answer in time gets no new process: waiting for it would take the others' time.
MOST_SILENCES = 2
#: Seconds for a process that let go of its pipe to end by itself.
ENDING = 5


class Operation(NamedTuple):
    """A pass of a layer, ready to run."""

    #: What is timed, from call to return.
    call: Callable[[], Any]
    #: Runs it and gives its result.
    result: Callable[[], np.ndarray]
    #: How it is timed, if not from call to return after one call: takes the length of a turn, gives the seconds of each.
    measure: Optional[Callable[[float], "list[float]"]] = None
    #: What else is to be known about it. "images": it computes on so many first images, and its times are scaled.
    facts: Mapping[str, Any] = {}


#: Takes a layer and its operands; gives its operations by name.
Prepare = Callable[[Shape, Operands], "dict[str, Operation]"]


class PeerError(Exception):
    """A peer could not be installed, imported or run."""


@dataclass
class Times:
    """Seconds of single calls, or why there are none."""

    seconds: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def median(self) -> float:
        self._check()
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        self._check()
        return min(self.seconds)

    def _check(self) -> None:
        if self.failure:
            raise PeerError(self.failure)


class Worker:
    """A peer's process.

    Args:
        open_peer: called there with the number of threads; gives the peer's version and its `Prepare`.
        folder: where the peer's packages are, which come before those of this Python; None if they are among them.
        threads: how many the peer may use.
        realtime: run before everything else on this machine; needs the right to (root, or CAP_SYS_NICE).
        pause: seconds to leave the machine alone after a turn.
        patience: seconds after which a request counts as failed and the process is ended; None waits for ever.

    Raises:
        PeerError: if it does not start. So does every method if the peer fails, or has ended. The next `load` starts a
            process anew where one has ended.
    """

    def __init__(
        self, open_peer: Callable[[int], tuple[str, Prepare]], folder: Path | None, threads: int,
        realtime: bool = False, pause: float = PAUSE, patience: float | None = None,
    ) -> None:
        self._open_peer = open_peer
        self._start_request = "start", folder, threads, realtime
        self.realtime = realtime
        self._pause = pause
        self._patience = patience
        self._silences = 0
        self.version = self._start()

    def _start(self) -> str:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._open_peer), daemon=True)
        self._process.start()
        theirs.close()
        try:
            return self._ask(*self._start_request)
        except PeerError:
            self.close()
            raise

    def load(self, shape: Shape) -> None:
        """Prepares a layer, in place of the one before."""
        self.begin_load(shape)
        self.end_load()

    def begin_load(self, shape: Shape) -> None:
        """Lets the process prepare a layer while others do so too; `end_load` waits for it."""
        if not self._process.is_alive():
            if self._silences == MOST_SILENCES:
                raise PeerError(f"gave no answer within {self._patience:g} s, {MOST_SILENCES} times")
            self._start()
        self._send("load", shape)

    def end_load(self) -> None:
        self._receive()

    def result(self, name: str, images: Sequence[int] | None = None) -> np.ndarray:
        """Runs an operation of the layer that was loaded; gives these images of its result, or all of it."""
        return self._ask("result", name, images)

    def facts(self) -> dict[str, Mapping[str, Any]]:
        """The operations of the layer that was loaded, and what is to be known about each."""
        return self._ask("facts")

    def turn(self, name: str, seconds: float) -> list[float]:
        """The seconds of each call of an operation, repeated for about so long, at least once."""
        began = time.perf_counter()
        times = self._ask("turn", name, seconds)
        # At real-time priority, others get the machine for as long as it was taken from them.
        time.sleep(max(self._pause, time.perf_counter() - began if self.realtime else 0))
        return times

    def close(self) -> None:
        self._process.kill()
        self._process.join()

    def _ask(self, *request: Any) -> Any:
        self._send(*request)
        return self._receive()

    def _send(self, *request: Any) -> None:
        try:
            self._connection.send(request)
        except OSError:
            pass  # it has ended, as `recv` will say

    def _receive(self) -> Any:
        try:
            if not self._connection.poll(self._patience):
                self.close()
                self._silences += 1
                raise PeerError(f"gave no answer within {self._patience:g} s")
            answer, value = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(ENDING)
            self.close()
            raise PeerError(f"its process ended with exit code {self._process.exitcode}") from None
        if answer == "error":
            raise PeerError(value)
        return value


def time_in_turns(
    contenders: Sequence[tuple[Worker, str]], rounds: int, seconds: float, longest: float = math.inf
) -> list[Times]:
    """Times operations in turns, so that whatever else the machine does meets all of them alike. Who fails, or needs
    more than `longest` seconds for a turn, gets no other one."""
    times = [Times() for _ in contenders]
    out: set[int] = set()
    for first in range(rounds):
        for i in range(len(contenders)):
            turn = (first + i) % len(contenders)
            if turn in out:
                continue
            worker, name = contenders[turn]
            began = time.perf_counter()
            try:
                times[turn].seconds += worker.turn(name, seconds)
            except PeerError as error:
                times[turn].failure = str(error)
                out.add(turn)
            if time.perf_counter() - began > longest:
                out.add(turn)
    return times


def installed(requirements: Sequence[str]) -> Path:
    """The folder of the user's cache where packages are, the first of them being the one that the others are for.
    Installs them there if they are not.

    Raises:
        PeerError: with what pip said.
    """
    package = requirements[0].replace("==", "-")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "libgrilly" / "peers" / f"{package}-{sys.implementation.cache_tag}"
    if folder.is_dir():
        return folder
    print(f"installing into {folder}: {' '.join(requirements)}", flush=True)
    unfinished = folder.with_name(folder.name + ".unfinished")
    # A virtual environment may lack pip: the one of the Python that made it installs for it.
    command = ["python3", "-m", "pip", "--python", sys.executable, "install", "--quiet", "--disable-pip-version-check"]
    command += ["--root-user-action=ignore", "--upgrade", "--target", str(unfinished), *requirements]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise PeerError(f"pip: {done.stderr.strip().splitlines()[-1]}")
    unfinished.rename(folder)
    return folder


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
            # Before this Python's own: packages of two peers may have the same name. Behind the benches' modules.
            sys.path.insert(1, str(folder))
        version, prepare = open_peer(threads)
        return version

    def load(shape: Shape) -> None:
        operations.clear()
        operations.update(prepare(shape, Operands.of(shape)))

    def result(name: str, images: Sequence[int] | None) -> np.ndarray:
        whole = operations[name].result()
        return whole if images is None else whole[list(images)]

    def facts() -> dict[str, Mapping[str, Any]]:
        return {name: operation.facts for name, operation in operations.items()}

    def turn(name: str, seconds: float) -> list[float]:
        operation = operations[name]
        if operation.measure is not None:
            return operation.measure(seconds)
        call = operation.call
        call()  # the caches are full of another's data
        times: list[float] = []
        until = time.perf_counter() + seconds
        while not times or time.perf_counter() < until:
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        return times

    methods = {method.__name__: method for method in (start, load, result, facts, turn)}
    while True:
        name, *arguments = connection.recv()
        try:
            answer = "value", methods[name](*arguments)
        except Exception as error:
            answer = "error", " ".join(f"{type(error).__name__}: {error}".split())
        connection.send(answer)
