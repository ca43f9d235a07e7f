"""Runs jobs in several processes, which end with the program, and shows their progress."""

import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import threading

from kpose.core.errors import InputError
from kpose.core.progress import Progress

_STOP = -1

# Only in a worker process: the shared counter of finished units. It is module state because a
# counter in shared memory can only be passed to a spawned process when that process starts, that is
# to the initializer of the pool.
_done = None


def run(function, jobs, workers, total, unit="persons"):
    """Calls `function(*job, progress=...)` for each job, in several processes.

    Args:
        function: a function of a module; it calls `progress(count)` when `count` more units are
            finished.
        jobs: list of argument tuples.
        workers: number of processes; 0: one per core.
        total: number of units in all jobs.
        unit: name of the units in the plural.

    Yields:
        (index of the job, its result), in the order in which the jobs end.

    Raises:
        InputError: from the first job that failed, or because a process was killed.
    """
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    with Progress(total, unit) as progress:
        if workers <= 1:
            for index, job in enumerate(jobs):
                yield index, function(*job, progress=progress.add)
            return
        # A fork of a process in which TensorFlow runs threads can deadlock.
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
                # They end at their next call of `progress`. Until then they write in the same folder.
                pool.shutdown(cancel_futures=True)
                if not isinstance(error, concurrent.futures.process.BrokenProcessPool):
                    raise
                raise InputError(
                    "a writer process was killed, perhaps because it was out of memory: run the same command again "
                    "to continue, with a smaller --workers"
                ) from None


def _begin(counter):
    """Initializes a worker process."""
    global _done
    _done = counter
    parent = multiprocessing.parent_process()

    def end_with_parent():
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    # A parent that was killed cannot stop its workers. They must not write beside those of the next
    # run.
    threading.Thread(target=end_with_parent, daemon=True).start()


def _call(function, job):
    return function(*job, progress=_add)


def _add(count):
    with _done.get_lock():
        if _done.value == _STOP:
            raise InterruptedError("another process failed")
        _done.value += count
