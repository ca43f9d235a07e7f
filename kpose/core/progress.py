"""Progress of long work: a tqdm bar on a terminal, log lines otherwise."""

import sys
import time

from absl import logging
from tqdm import tqdm

# Seconds before the first log line, and between later ones, if no terminal is attached.
FIRST_LINE = 5.0
NEXT_LINES = 30.0


class Progress:
    """A context that shows the progress of some work.

    On a terminal it shows a bar. Otherwise it logs a line after `FIRST_LINE` seconds, then every
    `NEXT_LINES` seconds, and at the end if a line was logged before. A line is, for example:
    "1,200 of 5,610 persons, 870 persons/s, 5 s left".

    Args:
        total: number of units; None: not known.
        unit: the plural name of the unit, such as "persons".
        done: number of units that are done at the start.
        name: text in front of the bar or line.
        shown: whether to show anything.
        own_lines: `set` logs no lines; the caller checks `line_is_due` and calls `log_line`.

    Attributes:
        done: number of units that are done.
        on_terminal: whether a bar is shown.

    Example:
        with Progress(len(paths), "images") as progress:
            for path in paths:
                ...
                progress.add(1)
    """

    def __init__(self, total, unit, done=0, name="", shown=True, own_lines=False):
        self.total, self.unit, self.name, self.shown = total, unit, name, shown
        self._own_lines = own_lines
        self.done = done
        self.on_terminal = shown and sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=name or None,
            # Only bytes get a prefix such as M.
            unit="B" if unit == "bytes" else f" {unit}",
            unit_scale=unit == "bytes",
            disable=not self.on_terminal,
            dynamic_ncols=True,
        )
        # tqdm measures by the time of day: if that was set back, its bar would stand still.
        self._bar._time = time.monotonic
        self._bar.unpause()
        self._logged = False
        self.restart()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def restart(self):
        """Restarts the time measurement, after a preparation that is not part of the work."""
        self._start, self._started = self.done, time.monotonic()
        self._next_line = self._started + FIRST_LINE

    def close(self):
        """Removes the bar."""
        self._bar.close()

    def add(self, count, **facts):
        """Adds to the number of units that are done.

        Args:
            count: number of units to add.
            **facts: as for `set`.
        """
        self.set(self.done + count, **facts)

    def set(self, done, **facts):
        """Sets the number of units that are done.

        Args:
            done: number of units.
            **facts: name=short text, shown beside the bar.
        """
        changed, self.done = done > self.done, done
        if self.on_terminal:
            self._bar.update(done - self._bar.n)
            if facts:
                self._bar.set_postfix(facts, refresh=False)
        elif changed and not self._own_lines and (self.line_is_due() or (self._logged and done == self.total)):
            self.log_line(self._text())

    def line_is_due(self):
        """Whether it is time for a log line; False on a terminal."""
        return self.shown and not self.on_terminal and time.monotonic() >= self._next_line

    def log_line(self, text):
        """Logs a progress line; the next one is due after `NEXT_LINES` seconds."""
        self._next_line = time.monotonic() + NEXT_LINES
        self._logged = True
        if self.shown:
            logging.info("%s", text)

    def write(self, text):
        """Prints a message to stderr, above the bar."""
        if self.shown:
            tqdm.write(text, file=sys.stderr)

    def log(self, text):
        """Logs a message; on a terminal prints it above the bar, which a log line would break."""
        if self.on_terminal:
            self.write(text)
        elif self.shown:
            logging.info("%s", text)

    def _text(self):
        rate = (self.done - self._start) / max(time.monotonic() - self._started, 1e-9)
        show, unit = (_megabytes, "MB") if self.unit == "bytes" else (_plain, self.unit)
        of_total = "" if self.total is None else f" of {show(self.total)}"
        parts = [f"{show(self.done)}{of_total} {unit}", f"{show(rate)} {unit}/s"]
        if self.total is not None:
            parts.append(f"{(self.total - self.done) / max(rate, 1e-9):.0f} s left")
        return (f"{self.name}: " if self.name else "") + ", ".join(parts)


def _megabytes(count):
    return f"{count / 1e6:,.1f}"


def _plain(count):
    return f"{count:,.0f}" if count >= 10 or count == int(count) else f"{count:.2g}"
