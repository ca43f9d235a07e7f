"""Limits on the sizes of weight files, checked before anything is read."""

from kpose.core.errors import InputError

# Bytes of the largest weight file and of all its arrays. The weights of the backbones have up to
# 100 MB, a checkpoint of PyTorch with its optimizer three times as many.
MAX_BYTES = 1_000_000_000


def check_bytes(path, count):
    """Raises `InputError` if a file, or what it holds, has too many bytes."""
    if count > MAX_BYTES:
        raise InputError(
            f"{path}: {count / 1e9:.1f} GB of weights, at most {MAX_BYTES / 1e9:g} GB are read: save only the weights"
        )


def read_member(archive, name):
    """The content of a member of a `zipfile.ZipFile`; `ValueError` if it is larger than it claims.

    Args:
        archive: the archive; the sizes of its members have been checked.
        name: the member.
    """
    size = archive.getinfo(name).file_size
    with archive.open(name) as member:
        content = member.read(size + 1)
    if len(content) != size:
        raise ValueError(f"{name} has not the size in its archive")
    return content
