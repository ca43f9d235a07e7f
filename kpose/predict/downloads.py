"""Downloads from http and https URLs."""

import contextlib
import io
import socket
import threading
import time

from kpose.core.errors import InputError, first_line

# Limits of a download: bytes, seconds without an answer, and seconds in total.
MAX_BYTES = 100_000_000
TIMEOUT = 20
MAX_SECONDS = 120
# Limits of a slow one: the mean rate in bytes per second, from this many seconds on.
MIN_RATE = 1000
SLOW_AFTER = 20
# Digits of a length that is read. Python refuses numbers of thousands of digits.
LENGTH_DIGITS = 15


def download(url):
    """The bytes at a URL.

    Raises:
        InputError: there is no answer, it takes too long or it is too large.
    """
    # Imported here: the import takes 0.1 s.
    import http.client
    import urllib.error

    start = time.monotonic()
    late = threading.Event()
    try:
        with _opened(url, MAX_SECONDS, late) as answer:
            length = _content_length(answer)
            data = io.BytesIO()
            while chunk := answer.read1(1 << 16):
                data.write(chunk)
                _check_progress(data.tell(), time.monotonic() - start)
            if late.is_set():
                raise TimeoutError
            # `read1` does not raise an error if the connection ends early.
            if length is not None and data.tell() < length:
                raise ValueError(f"it ended early, after {data.tell()} bytes")
            return data.getvalue()
    except urllib.error.HTTPError as error:
        raise InputError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if late.is_set():
            raise InputError(f"{url}: not complete after {MAX_SECONDS} seconds") from None
        raise InputError(f"{url}: cannot be downloaded ({first_line(getattr(error, 'reason', error))})") from None


def content_type(url):
    """The content type at a URL, such as "image/jpeg"; "" if there is no answer."""
    import http.client

    try:
        with _opened(url, TIMEOUT, threading.Event()) as answer:
            return answer.headers.get_content_type().lower()
    except (OSError, http.client.HTTPException, ValueError):
        return ""


def _content_length(answer):
    """The length that the header of an answer announces; None without one.

    Raises:
        ValueError: it is no number, or too large.
    """
    text = (answer.headers.get("Content-Length") or "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"it has the Content-Length {text[:20]!r}")
    if len(text) > LENGTH_DIGITS or int(text) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES // 10**6} MB")
    return int(text)


def _check_progress(count, seconds):
    """Raises `ValueError` if a download is too large or too slow."""
    if count > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES // 10**6} MB")
    if seconds > SLOW_AFTER and count < MIN_RATE * seconds:
        raise ValueError(f"slower than {MIN_RATE} bytes per second: {count} bytes in {seconds:.0f} s")


@contextlib.contextmanager
def _opened(url, seconds, late):
    """Yields the answer to a request, whose connections are closed after a time.

    The timeout of a socket is for each of its reads, and a server can send its header, or the
    length of a part, byte by byte.

    Args:
        url: the URL.
        seconds: the time from now.
        late: a `threading.Event` that is set after it.
    """
    from urllib import request

    from kpose import __version__

    sockets = []

    def close():
        late.set()
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    opener = request.OpenerDirector()
    # No handlers of ftp, file and data, to which an answer could redirect.
    for handler in (
        request.ProxyHandler,
        request.UnknownHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPRedirectHandler,
        request.HTTPErrorProcessor,
        *_handlers(sockets),
    ):
        opener.add_handler(handler())
    timer = threading.Timer(seconds, close)
    timer.daemon = True
    timer.start()
    try:
        # Some servers refuse Python's own name.
        asked = request.Request(url, headers={"User-Agent": f"kpose/{__version__}"})
        with opener.open(asked, timeout=TIMEOUT) as answer:
            yield answer
    finally:
        timer.cancel()


def _handlers(sockets):
    """The classes of handlers of http and https; they add their sockets to a list."""
    import http.client
    from urllib import request

    class Plain(http.client.HTTPConnection):
        def connect(self):
            super().connect()
            sockets.append(self.sock)

    class Secure(http.client.HTTPSConnection):
        def connect(self):
            super().connect()
            sockets.append(self.sock)

    class HTTPHandler(request.HTTPHandler):
        def http_open(self, asked):
            return self.do_open(Plain, asked)

    class HTTPSHandler(request.HTTPSHandler):
        def https_open(self, asked):
            return self.do_open(Secure, asked)

    return HTTPHandler, HTTPSHandler
