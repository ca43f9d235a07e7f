"""Processes that measure: a crash, a hang or a lack of memory loses only what runs in them.

A worker answers requests one after the other, so that its parent can time several workers in
alternation. PyTorch and TensorFlow crash in one process, so each has its own.

This module imports the standard library only: a worker's Python may lack TensorFlow and absl.
"""

import contextlib
import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback

# PR_SET_PDEATHSIG of linux/prctl.h.
_PARENT_DEATH_SIGNAL = 1


class WorkerError(Exception):
    """A request failed; the text is one line."""


class Worker:
    """A process that answers requests with `serve`. It ends with the thread that makes it.

    Args:
        module: name of the module that the process runs.
        log: path of the file for all other output of the process.
        python: list of words that start Python; None: this Python.
        environment: dict of further environment variables.
        paused: stop the process between requests, so that threads that wait busily take no core
            from what is timed next.
    """

    def __init__(self, module, log, python=None, environment=None, paused=False):
        self.log = log
        self._paused = paused
        self._answers = queue.Queue()
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                [*(python or [sys.executable]), "-u", "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                # A group of its own, so that its children end with it.
                start_new_session=True,
                env=os.environ | (environment or {}),
                text=True,
            )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def ask(self, request, seconds=None):
        """The answer to a request, a dict.

        Args:
            request: dict for the worker's handler.
            seconds: time limit; None: no limit. The process is killed if it takes longer.

        Raises:
            WorkerError: the handler raised, the process ended, or the time is over. Only in the
                first case the worker can be asked again (`alive`).
        """
        self._signal(signal.SIGCONT)
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            self.close()
            raise WorkerError(f"no answer after {seconds:.0f} s: {self.last_lines()}") from None
        self._signal(signal.SIGSTOP)
        if line is None:
            self.close()
            raise WorkerError(f"the process ended with status {self._process.wait()}: {self.last_lines()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _signal(self, number):
        if self._paused and self.alive:
            self._process.send_signal(number)

    @property
    def alive(self):
        return self._process.poll() is None

    def last_lines(self, number=4):
        """The last lines of the log that are not empty, as one line of at most 600 characters."""
        with open(self.log, errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
        return " | ".join(lines[-number:])[-600:]

    def close(self):
        """Ends the process and its children."""
        self._signal(signal.SIGCONT)
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        # A worker without a request ends at the end of its input.
        deadline = time.monotonic() + 0.5
        while self.alive and not self._answers.qsize() and time.monotonic() < deadline:
            time.sleep(0.02)
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def serve(handle):
    """Answers requests until the end of stdin; called by the module of a worker.

    Everything that is printed goes to stderr, which is the log.

    Args:
        handle: function of a dict -> dict that JSON can hold. Its exceptions are answered.
    """
    _end_with_parent(os.getppid())
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer = handle(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            text = " ".join(str(error).split())
            # The cause is at the end of TensorFlow's messages, after the places in the source.
            answer = {
                "error": f"{type(error).__name__}: {text if len(text) < 500 else f'{text[:80]} ... {text[-400:]}'}"
            }
        print(json.dumps(answer), file=answers, flush=True)
    answers.flush()
    # The exit handlers of a framework can hang.
    os._exit(0)


def _end_with_parent(parent):
    """Lets this process end when the parent is gone, for example killed by a time limit."""
    if sys.platform.startswith("linux"):
        # Also while it is stopped. The kernel sends the signal when the thread ends that made this process.
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    # For a parent that ended before, and other systems.
    threading.Thread(target=watch, daemon=True).start()
