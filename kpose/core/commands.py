"""Runs the commands of kpose one after the other, each in a process of its own."""

import shlex
import subprocess
import sys

from kpose.core.errors import InputError


def run(module, quiet=False, **arguments):
    """Runs `python -m module --name=value ...` and waits for its end.

    Args:
        module: the command's module, such as "kpose.train".
        quiet: do not print the command line and what the command writes to stderr.
        **arguments: its flags; names with a dot as `**{"config.steps": 5}`.

    Raises:
        InputError: the command failed. The message is the last line that it wrote to stderr, which is the
            reason; if stderr was not captured, it is the exit status.
    """
    words = ["-m", module, *(f"--{name}={value}" for name, value in arguments.items())]
    if not quiet:
        print(f"\n$ python {shlex.join(words)}", flush=True)
    # A pipe would turn off the progress bars, so stderr is captured only if it is not shown.
    stderr = subprocess.PIPE if quiet else None
    done = subprocess.run([sys.executable, *words], stderr=stderr, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or "").strip().splitlines()
        reason = lines[-1] if lines else f"failed with exit status {done.returncode}"
        raise InputError(f"python -m {module}: {reason}{'' if quiet else ' (see above)'}")
