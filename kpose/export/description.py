"""The description inside a .tflite or .onnx file: what the crops must show and what comes out.

ONNX has metadata of its own: the entry "kpose" is JSON. A .tflite file may be followed by a .zip
archive of further files, as TensorFlow Lite's own metadata are; it holds kpose.json.

The fields are those of `of_network` in `kpose.export.converted`; docs/serving.md lists them. Nothing
here needs TensorFlow.
"""

import hashlib
import io
import json
import zipfile

from kpose.core import files
from kpose.core.errors import InputError, first_line

# The file in the archive behind a .tflite file.
FILE = "kpose.json"
# The entry in the metadata of an .onnx file.
ENTRY = "kpose"
# Values of the field "scores".
CONFIDENCE, RESOLUTION = "confidence", "resolution"


def attach(content, kind, description):
    """Returns a converted file with a description inside, in bytes.

    Args:
        content: the file in bytes.
        kind: "tflite" or "onnx".
        description: dict of JSON values.
    """
    if kind == "onnx":
        import onnx

        model = onnx.load_from_string(content)
        onnx.helper.set_model_props(model, {ENTRY: json.dumps(description, ensure_ascii=False)})
        return model.SerializeToString()
    # The interpreter does not notice damage to the file, and may crash the process.
    description = description | {"sha256": hashlib.sha256(content).hexdigest()}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        # A fixed time, so that equal models are equal files.
        file.writestr(zipfile.ZipInfo(FILE), json.dumps(description, ensure_ascii=False).encode())
    return content + archive.getvalue()


def of_tflite(content, name):
    """Returns the description in a .tflite file: dict; None if it has none.

    Args:
        content: the file in bytes.
        name: its name, for errors.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if FILE not in archive.namelist():
                return None
            description = json.loads(archive.read(FILE))
            end = archive.infolist()[0].header_offset
    except zipfile.BadZipFile:
        return None
    except Exception as error:
        raise InputError(f"{name}: damaged: its description cannot be read ({first_line(error)})") from None
    known = description.get("sha256")
    if known and hashlib.sha256(content[:end]).hexdigest() != known:
        raise InputError(f"{name}: damaged: its checksum is not the one in its description")
    return description


def of_onnx(metadata, name):
    """Returns the description in an .onnx file: dict; None if it has none.

    Args:
        metadata: dict of the entries of the file's metadata.
        name: its name, for errors.

    Raises:
        InputError: the entry is damaged.
    """
    try:
        return json.loads(metadata[ENTRY]) if ENTRY in metadata else None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: damaged: its description cannot be read ({first_line(error)})") from None


def read(path):
    """Returns the description in a .tflite or .onnx file: dict; None if it has none.

    Args:
        path: the file.

    Raises:
        InputError: the file is missing or damaged, or is .onnx and the package onnx is missing.
    """
    if not files.is_file(path):
        raise InputError(f"{path}: no such file")
    content = files.read_bytes(path)
    if not path.endswith(".onnx"):
        return of_tflite(content, path)
    try:
        import onnx
    except ImportError:
        raise InputError(f"{path}: its description can be read only with the package onnx: pip install onnx") from None
    try:
        entries = onnx.load_from_string(content).metadata_props
    except Exception as error:
        raise InputError(f"{path}: not an ONNX file, or damaged ({first_line(error)})") from None
    return of_onnx({entry.key: entry.value for entry in entries}, path)
