"""The workers of a training meet before TensorFlow connects them.

TensorFlow waits without a message, and for an hour, for a worker that does not come. So each worker
first listens at its own address, connects to all others, and logs whom it waits for. One line of
text is exchanged: a version, the list of workers, the index and the process of the sender.

A worker that is connected to all others tells them so ("ready"). It goes on when it has told all
others and has heard it from all of them: then no worker still needs its answer.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import secrets
import socket
import subprocess
import sys
import time

from absl import logging

from kpose.core.errors import InputError, first_line

# Seconds until a training gives up, between two lines in the log, between two attempts to connect,
# and for the answer to one attempt.
TIMEOUT, _LOG_EVERY, _RETRY_AFTER, _ANSWER_WITHIN = 600, 10, 1, 5
# Seconds for which a worker answers after an error, so that the others learn of it.
_ANSWER_AFTER_ERROR = 3
_HELLO = re.compile(rb"kpose-workers-1 ([0-9a-f]{64}) ([0-9]{1,6}) ([0-9a-f]{16})\n")
_READY, _ERROR = b"ready\n", b"error "
# Of the workers that are missing, a line names this number.
_NAMED = 8


def wait_for_all(cluster, timeout=TIMEOUT, log_every=_LOG_EVERY):
    """Returns when all workers are connected with each other.

    Every `log_every` seconds it logs which workers are missing, and why.

    Args:
        cluster: `cluster.Cluster`.
        timeout: seconds until it gives up.
        log_every: seconds between two lines in the log.

    Raises:
        InputError: a worker did not come in time, two processes have the same index, the lists of
            two workers differ, or the port of this worker is not free.
    """
    asyncio.run(_Meeting(cluster, timeout, log_every).run())


# Ends the process that started it, unless its standard input is closed in time.
_GUARD = """
import os, select, signal, sys
seconds, process, message = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if not select.select([0], [], [], seconds)[0]:
    os.write(2, f"error: {message}\\n".encode())
    os.kill(process, signal.SIGKILL)
"""


@contextlib.contextmanager
def time_limit(seconds, message):
    """A context that kills this process, after one line on stderr, if it takes too long.

    For calls that wait in C++ and keep Python's lock: no thread and no signal handler runs then, and
    TensorFlow's own time limit has no effect. So the limit is in another process.

    Args:
        seconds: the limit.
        message: the line.
    """
    command = [sys.executable, "-S", "-c", _GUARD, str(seconds), str(os.getpid()), message]
    # In a session of its own, so that Ctrl-C does not end it.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as guard:
        try:
            yield
        finally:
            guard.stdin.close()


class _Meeting:
    """The state of `wait_for_all`.

    Attributes:
        hello: the line that this worker sends first.
        others: indices of the other workers.
        missing: why a worker is not connected, by index.
        told: indices of the workers that know that this worker is ready.
        ready: indices of the workers that are ready.
        accepted: index and process of each worker that has opened a connection, by its writer.
        error: the line with which this worker ends; empty until then.
        over: future; it ends with None, or with the `InputError`.
        complete: event; this worker is connected to all others.
    """

    def __init__(self, cluster, timeout, log_every):
        self.cluster, self.timeout, self.log_every = cluster, timeout, log_every
        self.digest = hashlib.sha256("\n".join(cluster.addresses).encode()).hexdigest()
        self.process = secrets.token_hex(8)
        self.hello = f"kpose-workers-1 {self.digest} {cluster.index} {self.process}\n".encode()
        self.others = [index for index in range(len(cluster.addresses)) if index != cluster.index]
        self.missing = dict.fromkeys(self.others, "no connection yet")
        self.told, self.ready, self.accepted, self.error = set(), set(), {}, b""

    async def run(self):
        """Waits for all workers, see `wait_for_all`."""
        self.over, self.complete = asyncio.get_running_loop().create_future(), asyncio.Event()
        self.ends = time.monotonic() + self.timeout
        server = await asyncio.start_server(self._answer, sock=self._listen())
        tasks = [asyncio.create_task(work) for work in (*map(self._connect, self.others), self._report())]
        try:
            async with asyncio.timeout(self.timeout):
                await self.over
        except TimeoutError:
            message = f"not all workers came within {self.timeout:g} s (--worker_timeout); missing: {self._awaited()}"
            self._tell_all(message)
            raise InputError(message) from None
        except InputError as error:
            self._tell_all(str(error))
            await asyncio.sleep(_ANSWER_AFTER_ERROR)
            raise
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for writer in self.accepted:
                writer.close()

    def _listen(self):
        """A socket that listens at the port of this worker, as TensorFlow's server will."""
        _, port = self.cluster.host_and_port(self.cluster.index)
        try:
            try:
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES):
                    raise
                return socket.create_server(("", port), backlog=1024)
        except OSError as error:
            raise InputError(
                f"TF_CONFIG: this process is {self.cluster.name(self.cluster.index)}, but it cannot use the port "
                f"({os.strerror(error.errno)}): another process has the same index or the same port; "
                "give each process its own index, or another port"
            ) from None

    async def _answer(self, reader, writer):
        """Serves a connection that another worker has opened."""
        try:
            hello = await _read_hello(reader)
            if not hello or hello[0] != self.digest or hello[1] not in self.missing:
                # The other side compares the lists too, and says so.
                writer.write(self.hello)
                return
            _, index, process = hello
            twice = any(known == index and other != process for known, other in self.accepted.values())
            self.accepted[writer] = index, process
            self.ready.discard(index)
            writer.write(self.hello)
            if self.error:
                writer.write(self.error)
            if twice:
                self._fail(f"TF_CONFIG: two processes are {self.cluster.name(index)}: give each its own index")
            while await reader.readline() == _READY:
                self.ready.add(index)
                self._finish_if_done()
        except (OSError, TimeoutError, ValueError, asyncio.CancelledError):
            # Cancelled at the end of the meeting. Python 3.11 would log that as an error.
            pass
        finally:
            self.accepted.pop(writer, None)
            writer.close()

    async def _connect(self, index):
        """Keeps a connection to worker `index`."""
        host, port = self.cluster.host_and_port(index)
        while True:
            writer = None
            try:
                async with asyncio.timeout(_ANSWER_WITHIN):
                    reader, writer = await asyncio.open_connection(host, port)
                    writer.write(self.hello)
                hello = await _read_hello(reader)
                if hello is None:
                    self.missing[index] = "another program answers at this address"
                else:
                    self._check(index, *hello)
                    self.missing[index] = ""
                    self.told.discard(index)
                    await self._keep(index, reader, writer)
                    self.missing[index] = "the connection was lost"
            except TimeoutError:
                self.missing[index] = f"no answer within {_ANSWER_WITHIN} s"
            except (OSError, ValueError) as error:
                self.missing[index] = _reason(error)
            finally:
                self.complete.clear()
                if writer:
                    writer.close()
            await asyncio.sleep(_RETRY_AFTER)

    async def _keep(self, index, reader, writer):
        """Tells worker `index` when this worker is ready; returns when the connection is lost."""
        if not any(self.missing.values()):
            self.complete.set()
        telling = asyncio.create_task(self._tell_ready(index, writer))
        try:
            line = await reader.readline()
        finally:
            telling.cancel()
        if line.startswith(_ERROR):
            text = " ".join(line.removeprefix(_ERROR).decode(errors="replace").split())
            self._fail(f"{self.cluster.name(index)} has ended: {text[:500]}")

    async def _tell_ready(self, index, writer):
        await self.complete.wait()
        writer.write(_READY)
        self.told.add(index)
        self._finish_if_done()

    def _check(self, index, digest, found, process):
        """Ends the meeting if the process at the address of worker `index` is not this worker."""
        name, me = self.cluster.name(index), self.cluster.name(self.cluster.index)
        if process == self.process:
            self._fail(f"TF_CONFIG: the address of {name} leads to this process, which is {me}: correct the addresses")
        elif digest != self.digest:
            self._fail(f"TF_CONFIG: {name} has another list of workers: give all workers the same cluster")
        elif found != index:
            self._fail(f"TF_CONFIG: the process at the address of {name} has the index {found}: correct its index")

    def _fail(self, message):
        if not self.over.done():
            self.over.set_exception(InputError(message))

    def _finish_if_done(self):
        if not self.over.done() and len(self.told) == len(self.ready) == len(self.others):
            self.over.set_result(None)

    def _tell_all(self, message):
        """Sends an error to the workers that have opened a connection, so that they end too."""
        self.error = _ERROR + message.encode() + b"\n"
        for writer in self.accepted:
            with contextlib.suppress(OSError):
                writer.write(self.error)

    def _awaited(self):
        """The workers that are missing, with their addresses and why."""
        # Those that are ready and know that this worker is ready may have gone on.
        gone = self.ready & self.told
        names = [f"{self.cluster.name(i)}: {why}" for i, why in self.missing.items() if why and i not in gone]
        if not names:
            names = [
                f"{self.cluster.name(index)}: it has no connection to another worker, see its log"
                for index in self.others
                if index not in self.ready
            ]
        more = f"; and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return "; ".join(names[:_NAMED]) + more

    async def _report(self):
        """Logs the missing workers at intervals."""
        while True:
            await asyncio.sleep(self.log_every)
            # After an error it goes on to answer, but it waits for nobody.
            if self.over.done():
                return
            left = self.ends - time.monotonic()
            logging.warning("waiting for %s (%.0f s left)", self._awaited(), left)


async def _read_hello(reader):
    """(digest of the list, index, process) of the sender; None if it is no worker."""
    async with asyncio.timeout(_ANSWER_WITHIN):
        found = _HELLO.fullmatch(await reader.readline())
    return found and (found[1].decode(), int(found[2]), found[3].decode())


def _reason(error):
    """Why a connection failed."""
    number = getattr(error, "errno", None)
    # The numbers of failed look-ups of names are negative.
    return os.strerror(number) if number and number > 0 else getattr(error, "strerror", None) or first_line(error)
