"""Jobs shared out among processes, with progress; nothing outlives the program."""

import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
import time

from absl import logging
from tqdm import tqdm

from kpose.core.errors import InputError

# Seconds between two lines of progress where no terminal is attached.
LOG_EVERY = 10.0

_STOP = -1
_done = None  # In a worker: the counter of persons done, shared by all.


def run(function, jobs, workers, total, noun="persons"):
    """Calls `function(*job, progress=...)` for each job, in as many processes as asked for.

    Args:
        function: a module's function; `progress(count)` tells how much is done.
        jobs: argument tuples.
        workers: processes; 0: one a core.
        total: what all jobs' counts add up to.
        noun: what is counted.

    Yields:
        (index of the job, its result), in the order in which they end.

    Raises:
        InputError: of the first job that failed, or when a process was killed.
    """
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    with _Progress(total, noun) as progress:
        if workers <= 1:
            for index, job in enumerate(jobs):
                yield index, function(*job, progress=progress.add)
            return
        # Forking a process that runs TensorFlow's threads can deadlock.
        context = multiprocessing.get_context("spawn")
        counter = context.Value("q", 0)
        with concurrent.futures.ProcessPoolExecutor(workers, context, _begin, (counter,)) as pool:
            futures = {pool.submit(_call, function, job): index for index, job in enumerate(jobs)}
            waiting = set(futures)
            try:
                while waiting:
                    ended, waiting = concurrent.futures.wait(waiting, timeout=0.5, return_when="FIRST_COMPLETED")
                    progress.set(counter.value)
                    for future in ended:
                        yield futures[future], future.result()
            except BaseException as error:
                counter.value = _STOP
                pool.shutdown(wait=False, cancel_futures=True)
                if not isinstance(error, concurrent.futures.process.BrokenProcessPool):
                    raise
                raise InputError(
                    "a writing process was killed, perhaps for want of memory: give the same command again (with fewer "
                    "--workers) to go on"
                ) from None


def _begin(counter):
    global _done
    _done = counter
    parent = multiprocessing.parent_process()

    def end_with_parent():
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    # A parent that was killed cannot tell its children, and a second start must not meet them at work.
    threading.Thread(target=end_with_parent, daemon=True).start()


def _call(function, job):
    return function(*job, progress=_add)


def _add(count):
    with _done.get_lock():
        if _done.value == _STOP:
            raise InterruptedError("another process failed")
        _done.value += count


class _Progress:
    """A bar on a terminal, otherwise lines with rate and time left."""

    def __init__(self, total, noun):
        self.total, self.noun, self.done = total, noun, 0
        self.started = self.logged = time.monotonic()

    def __enter__(self):
        self.bar = tqdm(total=self.total, unit=f" {self.noun}", disable=not sys.stderr.isatty(), dynamic_ncols=True)
        return self

    def __exit__(self, *error):
        self.bar.close()

    def add(self, count):
        self.set(self.done + count)

    def set(self, done):
        self.bar.update(done - self.done)
        changed, self.done = done > self.done, done
        now = time.monotonic()
        if self.bar.disable and changed and (now - self.logged >= LOG_EVERY or done == self.total):
            self.logged = now
            rate = done / max(now - self.started, 1e-9)
            left = (self.total - done) / max(rate, 1e-9)
            logging.info("%d of %d %s (%.0f a second, %.0f s left)", done, self.total, self.noun, rate, left)
