"""Commands that run other commands."""

import pytest

from kpose.core import commands
from kpose.core.errors import InputError
from tests import helpers


def test_a_quiet_command_that_fails_is_an_error_with_its_last_line(capfd):
    with pytest.raises(InputError, match=r"python -m kpose.export: .*none/config.json: no such") as error:
        commands.run("kpose.export", quiet=True, workdir="none")
    helpers.one_line(error)
    assert capfd.readouterr() == ("", "")


def test_a_command_is_printed_before_its_own_messages(capfd):
    with pytest.raises(InputError, match=r"kpose.export: failed with exit status 1 \(see above\)"):
        commands.run("kpose.export", workdir="no such folder")
    out, err = capfd.readouterr()
    assert out == "\n$ python -m kpose.export '--workdir=no such folder'\n"
    assert "no such folder/config.json: no such" in err
