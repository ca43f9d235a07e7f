"""Downloads from http and https URLs."""

import io
import time

from kpose.core.errors import InputError, first_line

# Limits of a download: bytes, seconds without an answer, and seconds in total.
MAX_BYTES = 100_000_000
TIMEOUT = 20
MAX_SECONDS = 120


def download(url):
    """The bytes at a URL.

    Raises:
        InputError: there is no answer, it takes too long or it is too large.
    """
    # Imported here: the import takes 0.1 s.
    import http.client
    import urllib.error
    import urllib.request

    end = time.monotonic() + MAX_SECONDS
    try:
        with urllib.request.urlopen(_request(url), timeout=TIMEOUT) as answer:
            if int(answer.headers.get("Content-Length") or 0) > MAX_BYTES:
                raise InputError(f"{url}: larger than {MAX_BYTES // 10**6} MB")
            data = io.BytesIO()
            while chunk := answer.read1(1 << 16):
                data.write(chunk)
                if data.tell() > MAX_BYTES:
                    raise InputError(f"{url}: larger than {MAX_BYTES // 10**6} MB")
                if time.monotonic() > end:
                    raise InputError(f"{url}: not complete after {MAX_SECONDS} seconds")
            # `read1` does not raise an error if the connection ends early.
            if answer.length:
                raise InputError(f"{url}: the download ended early, after {data.tell()} bytes")
            return data.getvalue()
    except urllib.error.HTTPError as error:
        raise InputError(f"{url}: the server answers {error.code} {error.reason}") from None
    except InputError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InputError(f"{url}: cannot be downloaded ({first_line(getattr(error, 'reason', error))})") from None


def content_type(url):
    """The content type at a URL, such as "image/jpeg"; "" if there is no answer."""
    import http.client
    import urllib.request

    try:
        with urllib.request.urlopen(_request(url), timeout=TIMEOUT) as answer:
            return answer.headers.get_content_type().lower()
    except (OSError, http.client.HTTPException, ValueError):
        return ""


def _request(url):
    import urllib.request

    from kpose import __version__

    # Some servers refuse Python's own name.
    return urllib.request.Request(url, headers={"User-Agent": f"kpose/{__version__}"})
