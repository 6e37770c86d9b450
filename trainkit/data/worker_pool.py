"""Worker processes that turn items into results, and an end for all of them however one of us dies.

The standard library's process pool hangs if a worker is killed while a large task is on its way to it (fixed in later
versions), and its workers outlive a parent that is killed. Here each worker has a pipe of its own: the end of the pipe
is the end of the worker, and a dead worker is the end of the pipe.
"""

import multiprocessing
import queue
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from trainkit.errors import WorkerError

Work = Callable[[Any], Any]


class WorkerPool:
    """Processes that each call `make_work` once, and then what it returned for every item."""

    def __init__(self, make_work: Callable[[], Work], workers: int) -> None:
        """make_work and all items must be fit to travel (pickle)."""
        context = multiprocessing.get_context("spawn")
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._connections, self._processes = [], []
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make_work), daemon=True)
            process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)
            self._idle.put(ours)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="worker")

    def submit(self, item: Any) -> "Future[Any]":
        """Hand an item to the next idle worker.

        The future raises what the work raised, or WorkerError if the worker was killed.
        """
        return self._threads.submit(self._converse, item)

    def _converse(self, item: Any) -> Any:
        connection = self._idle.get()
        try:
            connection.send(item)
            error, result = connection.recv()
        except (EOFError, OSError):
            raise WorkerError("a worker process was killed, perhaps because memory ran out") from None
        finally:
            self._idle.put(connection)
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        self._threads.shutdown()
        for connection in self._connections:
            connection.close()


def _serve(connection: Connection, make_work: Callable[[], Work]) -> None:
    """Be a worker until the parent closes the pipe, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    work = make_work()
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = (None, work(item))
        except (ValueError, TypeError, LookupError, ArithmeticError, OSError, AssertionError) as error:
            answer = (error, None)
        try:
            connection.send(answer)
        except OSError:
            return
