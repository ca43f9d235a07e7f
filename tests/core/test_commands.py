"""Commands that run other commands."""

import os
import signal
import subprocess
import sys
import time

import pytest

from kpose.core import commands
from kpose.core.errors import InputError
from tests import helpers

# A command that ends before it imports anything large.
COMMAND = "tfrecords_tools.convert_csv"
ARGUMENTS = {"csv": "no such file.csv", "images": "none", "output": "none.json"}


def test_a_quiet_command_that_fails_is_an_error_with_its_last_line(capfd):
    with pytest.raises(
        InputError, match=r"python -m tfrecords_tools.convert_csv: .*no such file.csv: no such"
    ) as error:
        commands.run(COMMAND, quiet=True, **ARGUMENTS)
    helpers.one_line(error)
    assert capfd.readouterr() == ("", "")


def test_a_command_is_printed_before_its_own_messages(capfd):
    with pytest.raises(InputError, match=r"tfrecords_tools.convert_csv: failed with exit status 1 \(see above\)"):
        commands.run(COMMAND, **ARGUMENTS)
    out, err = capfd.readouterr()
    assert out == f"\n$ python -m {COMMAND} '--csv=no such file.csv' --images=none --output=none.json\n"
    assert "no such file.csv: no such" in err


def test_ctrl_c_waits_until_the_command_has_saved(tmp_path):
    """The command needs a second to save. It is not killed before."""
    (tmp_path / "saves.py").write_text(
        "import signal, sys, time\n"
        "def save(*_): time.sleep(1); open('saved', 'w').close(); sys.exit(0)\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, save)\n"
        "open('running', 'w').close(); time.sleep(60)\n"
    )
    # Tests that a shell runs in the background start with an ignored SIGINT.
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from kpose.core import commands; commands.run('saves', quiet=True)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (tmp_path / "running").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert (tmp_path / "saved").exists()
