"""Locks of folders, so that two processes do not write the same files.

The operating system releases a lock when its process ends, also after kill -9. The file of the lock
stays. Its text names the process that has the lock, or had it last.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import socket

from absl import logging

from kpose.core import files
from kpose.core.errors import InputError

LOCK_FILE = "lock"
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextlib.contextmanager
def locked(folder, doing, otherwise=""):
    """A context in which this process has the lock of a folder; makes the folder.

    A folder that it made is removed if it holds nothing but the lock at the end. Object stores
    (gs:// ...) have no locks. On a shared file system without locks a warning is logged.

    Args:
        folder: the folder.
        doing: the work, for messages, such as "training in this folder".
        otherwise: what else a user can do if another process has the lock; "": nothing.

    Raises:
        InputError: another process has the lock, or nothing can be written there.
    """
    if files.is_url(folder):
        files.make_folder(folder)
        yield
        return
    new = not os.path.exists(folder)
    with contextlib.closing(_take(folder, doing, otherwise)):
        try:
            yield
        finally:
            if new and os.path.isdir(folder) and os.listdir(folder) == [LOCK_FILE]:
                shutil.rmtree(folder)


def is_taken(folder):
    """Whether a process has the lock of a local folder; True too if its file system has no locks."""
    try:
        with open(os.path.join(folder, LOCK_FILE), encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _take(folder, doing, otherwise):
    """The open file of the lock, which this process has."""
    path = os.path.join(folder, LOCK_FILE)
    while True:
        try:
            os.makedirs(folder, exist_ok=True)
            lock = open(path, "a+", encoding="utf-8", errors="replace")
        except OSError as error:
            if error.errno in files.FULL:
                raise
            raise InputError(
                f"{folder}: nothing can be written there ({error.strerror}): choose another folder"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                with lock:
                    lock.seek(0)
                    holder = " ".join(lock.read(200).split())
                named = f" ({holder})" if holder else ""
                further = f", or {otherwise}" if otherwise else ""
                raise InputError(
                    f"{folder}: another process is {doing}{named}: wait until it ends, or stop it{further}"
                ) from None
            logging.warning(
                "%s: its file system has no locks (%s): make sure that no other process is %s",
                folder,
                error.strerror,
                doing,
            )
            return lock
        # Its last owner may have removed the folder after this process opened the file.
        if os.path.exists(path) and os.path.samestat(os.fstat(lock.fileno()), os.stat(path)):
            with contextlib.suppress(OSError):
                lock.truncate(0)
                lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
                lock.flush()
            return lock
        lock.close()
