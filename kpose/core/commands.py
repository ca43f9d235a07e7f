"""Runs commands of kpose in their own processes."""

import shlex
import subprocess
import sys

from kpose.core.errors import InputError


def run(module, quiet=False, **arguments):
    """Runs `python -m module --name=value ...` and waits until it exits.

    Args:
        module: the command's module, such as "kpose.train".
        quiet: do not print the command line and the command's stderr.
        **arguments: its flags. A name with a dot is passed as `**{"config.steps": 5}`.

    Raises:
        KeyboardInterrupt: Ctrl-C. The command has ended.
        InputError: the command failed. With `quiet`, the message is the last line of its stderr,
            which names the reason. Otherwise it is the exit status.
    """
    words = ["-m", module, *(f"--{name}={value}" for name, value in arguments.items())]
    if not quiet:
        print(f"\n$ python {shlex.join(words)}", flush=True)
    # Progress bars need a terminal, so stderr is captured only if it is not shown.
    stderr = subprocess.PIPE if quiet else None
    with subprocess.Popen([sys.executable, *words], stderr=stderr, text=True) as process:
        try:
            shown = process.communicate()[1]
        except KeyboardInterrupt:
            # A training saves its last step. `subprocess.run` would kill it after 0.25 s.
            process.terminate()
            process.communicate()
            raise
    if process.returncode:
        lines = (shown or "").strip().splitlines()
        reason = lines[-1] if lines else f"failed with exit status {process.returncode}"
        raise InputError(f"python -m {module}: {reason}{'' if quiet else ' (see above)'}")
