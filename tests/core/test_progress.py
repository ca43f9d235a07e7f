"""Progress: log lines by time, a bar on a terminal."""

import io
import logging as python_logging
import sys

import pytest

from kpose.core import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets: clock.now is in seconds."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def lines(caplog):
    caplog.set_level(python_logging.INFO, logger="absl")
    return lambda: [record.getMessage() for record in caplog.records]


def test_the_first_line_comes_after_seconds_and_the_next_ones_by_time(clock, lines):
    with progress.Progress(1000, "persons") as shown:
        for second in range(1, 101):
            clock.now = 100.0 + second
            shown.set(10 * second)
    assert lines() == [
        "50 of 1,000 persons, 10 persons/s, 95 s left",
        "350 of 1,000 persons, 10 persons/s, 65 s left",
        "650 of 1,000 persons, 10 persons/s, 35 s left",
        "950 of 1,000 persons, 10 persons/s, 5 s left",
        "1,000 of 1,000 persons, 10 persons/s, 0 s left",
    ]


def test_short_work_logs_nothing(clock, lines):
    with progress.Progress(10, "files") as shown:
        for _ in range(10):
            clock.now += 0.4
            shown.add(1)
    assert shown.done == 10 and lines() == []


def test_bytes_of_an_unknown_total_that_began_in_the_middle(clock, lines):
    with progress.Progress(None, "bytes", done=2_000_000, name="val.zip") as shown:
        clock.now += 10
        shown.add(5_000_000)
    assert lines() == ["val.zip: 7.0 MB, 0.5 MB/s"]


def test_what_is_not_shown_logs_nothing(clock, lines, capsys):
    with progress.Progress(10, "files", shown=False) as shown:
        clock.now += 100
        assert not shown.line_is_due()
        shown.add(5)
        shown.write("halfway")
        shown.log("halfway")
    assert lines() == [] and capsys.readouterr().err == ""


def test_other_lines_go_to_stderr_or_the_log(lines, capsys):
    with progress.Progress(10, "files") as shown:
        shown.write("halfway")
        shown.log("half the files")
    assert lines() == ["half the files"] and capsys.readouterr().err == "halfway\n"


def test_a_terminal_has_a_bar_instead_of_lines(clock, lines, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.Progress(10, "files", name="photos") as shown:
        clock.now += 100
        assert not shown.line_is_due()
        shown.add(10, loss="0.5")
        shown.write("halfway")
    assert lines() == []
    assert "photos" in terminal.getvalue() and "10/10" in terminal.getvalue() and "halfway\n" in terminal.getvalue()


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_bar_goes_on_after_the_time_of_day_was_changed(jump, clock, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("tqdm.std.time", lambda: 2e9 + clock.now)
    with progress.Progress(100, "files") as shown:
        monkeypatch.setattr("tqdm.std.time", lambda: 2e9 + jump + clock.now)
        for _ in range(50):
            clock.now += 1
            shown.add(1)
        text = terminal.getvalue()
    assert "50/100 [00:50<00:50" in text
