"""One measurement of one tokenizer, in a process of its own: `python -m benchmarking.tokenizer_worker JOB.json`.

A fresh process per figure makes the first pass a first pass, lets the peak of memory belong to one library, and pins
every library to the same cores before it starts its threads.
"""

import contextlib
import gc
import hashlib
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarking.tokenizer_tasks import Setup, Way, plain_documents, read_text

PROMPT = "The quick brown fox jumps over the lazy dog near a river."
PROMPT_BATCHES, PROMPT_CALLS = 50, 200
WARM_UP_TEXT = " ".join(f"q{number:x}" for number in range(20_000)) + "<|endoftext|>"
WARM_UP_VOCAB_SIZE = 300
PINNING_INTERVAL_S = 0.005


@dataclass(frozen=True)
class Job:
    """What to measure."""

    library: str
    task: str
    way: str
    folder: str
    """The vocabulary."""
    text: str
    """The text file."""
    ids: str
    """Its ids as a .npy file, for `decode`."""
    vocab_size: int
    """Of the vocabulary to train."""
    id_bytes: int
    threads: int
    passes: int
    """How often the task is repeated after the first pass."""
    backend: str
    keep: str = ""
    """Where to keep the result, as .npy, bytes or JSON; empty keeps none."""


@dataclass(frozen=True)
class Outcome:
    """What a job measured."""

    ready_seconds: float
    """Import the library, build its tables, and do the task once on a small text."""
    seconds: tuple[float, ...]
    """The first pass, then the repeated ones; for `prompt` only the median of many calls."""
    peak_megabytes: float
    """Most memory the process had held after the first pass, its input included."""
    digest: str
    """SHA-256 of the result, equal for equal results of different libraries."""
    size: int
    """Ids, bytes or tokens in the result."""


def main() -> None:
    """Run the job in the file that is named first; write its outcome beside it, as OUTCOME.json."""
    path = Path(sys.argv[1])
    job = Job(**json.loads(path.read_text(encoding="utf-8")))
    outcome = list_ways(job) if job.task == "ways" else asdict(measure(job))
    path.with_suffix(".outcome").write_text(json.dumps(outcome), encoding="utf-8")


def list_ways(job: Job) -> dict[str, list[str]]:
    """Return the names of a library's ways of doing each task."""
    return {task: list(ways) for task, ways in load(job, job.vocab_size).items()}


def load(job: Job, vocab_size: int) -> dict[str, dict[str, Way]]:
    """Import a library and give it the vocabulary."""
    from benchmarking.tokenizer_peers import LIBRARIES

    setup = Setup(Path(job.folder), job.threads, vocab_size, job.backend, np.dtype(f"<u{job.id_bytes}"))
    return LIBRARIES[job.library](setup).ways()


def measure(job: Job) -> Outcome:
    """Pin, load, warm up, and time the passes."""
    cores = pin_process(job.threads)
    start = time.perf_counter()
    way = load(job, job.vocab_size)[job.task][job.way]
    with tempfile.TemporaryDirectory() as folder, pin_threads(cores):
        warm_up(way if job.task != "train" else load(job, WARM_UP_VOCAB_SIZE)[job.task][job.way], job, Path(folder))
        ready_seconds = time.perf_counter() - start
        given = read_input(job, Path(folder))
        seconds, peak, result = time_prompt(way) if job.task == "prompt" else time_passes(way, given, job.passes)
        content = to_bytes(way.read(result), Path(job.keep) if job.keep else None)
    return Outcome(ready_seconds, tuple(seconds), peak, hashlib.sha256(content[0]).hexdigest(), content[1])


def read_input(job: Job, folder: Path) -> Any:
    """Return what a task starts from."""
    path = Path(job.text)
    match job.task:
        case "encode":
            return read_text(path)
        case "lists":
            return plain_documents(read_text(path))
        case "decode":
            return np.load(job.ids)
        case "file":
            return path, folder / "ids.bin"
        case "train":
            return path
    return PROMPT


def warm_up(way: Way, job: Job, folder: Path) -> None:
    """Do the task once on words that no text has, so that nothing is compiled or started while the clock runs."""
    path = folder / "warm_up.txt"
    path.write_text(WARM_UP_TEXT, encoding="utf-8")
    np.save(folder / "warm_up.npy", np.arange(256, dtype=np.uint32))
    given = read_input(replace(job, text=str(path), ids=str(folder / "warm_up.npy")), folder)
    way.run(way.prepare(given))


def time_passes(way: Way, given: Any, repeats: int) -> tuple[list[float], float, Any]:
    """Return the seconds of each pass, the peak after the first one [MB], and the last result."""
    prepared = way.prepare(given)
    seconds, peak, result = [], 0.0, None
    gc.collect()
    gc.disable()
    for index in range(1 + repeats):
        result = None
        start = time.perf_counter()
        result = way.run(prepared)
        seconds.append(time.perf_counter() - start)
        peak = peak if index else peak_megabytes()
    gc.enable()
    return seconds, peak, result


def time_prompt(way: Way) -> tuple[list[float], float, Any]:
    """Return the seconds of a usual call, the peak [MB], and the ids."""
    run, usual = way.run, []
    for _ in range(PROMPT_BATCHES):
        start = time.perf_counter()
        for _ in range(PROMPT_CALLS):
            run(PROMPT)
        usual.append((time.perf_counter() - start) / PROMPT_CALLS)
    return [median(usual)], peak_megabytes(), np.asarray(run(PROMPT))


def to_bytes(result: Any, keep: Path | None) -> tuple[bytes, int]:
    """Spell a result so that equal ones have equal bytes; returns them and how much it holds."""
    if isinstance(result, np.ndarray):
        content = result.astype("<u4").tobytes()
    elif isinstance(result, bytes):
        content = result
    else:
        content = json.dumps([token.hex() for token in result]).encode()
    if keep:
        keep.write_bytes(content)
    return content, len(result)


def peak_megabytes() -> float:
    """Return the most memory this program has held.

    Linux counts ru_maxrss from before exec, so a large parent would be counted for its child; VmHWM starts anew.
    """
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def pin_process(threads: int) -> list[int]:
    """Keep this process, and all threads it will start, on so many cores; returns them, none where that is unknown."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cores)
    return cores


@contextlib.contextmanager
def pin_threads(cores: Sequence[int]) -> Iterator[None]:
    """Give each thread that appears a core of its own, in turn: some machines pack unpinned threads on one core.

    The main thread may use all of them, as libraries differ in whether it works or waits.
    """
    if len(cores) < 2:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        known = {os.getpid(), threading.get_native_id()}
        turn = 0
        while not done.wait(PINNING_INTERVAL_S):
            for thread in sorted(map(int, os.listdir("/proc/self/task"))):
                if thread not in known:
                    known.add(thread)
                    with contextlib.suppress(ProcessLookupError):  # it has ended already
                        os.sched_setaffinity(thread, {cores[turn % len(cores)]})
                    turn += 1

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


if __name__ == "__main__":
    main()
