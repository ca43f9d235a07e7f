"""Fetches COCO 2017: the images of both splits and the keypoint labels.

python -m tfrecords_tools.download_coco --output_dir=coco

Interrupted, the same command goes on at the byte where it stopped. Sizes and MD5 checksums are tested. The images
stay in their .zip files, from which tfrecords_tools.write_coco reads them; the keypoint labels are unpacked.
"""

import os

from absl import flags

from kpose import cli
from tfrecords_tools import download

FLAGS = cli.flag_set()
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the files.", required=True, flag_values=FLAGS)
_FILES = flags.DEFINE_list(
    "files", list(download.ARCHIVES), "Which: train (19.3 GB), val (0.8 GB), annotations (0.3 GB).", flag_values=FLAGS
)
_BASE = flags.DEFINE_string("base", download.BASE, "Address above zips/ and annotations/.", flag_values=FLAGS)
_CHECKSUMS = flags.DEFINE_list(
    "md5", [], "Other checksums than COCO's, of a mirror's own files: val=442b8da7639a...", flag_values=FLAGS
)


def main():
    checksums = {}
    for entry in _CHECKSUMS.value:
        name, _, value = entry.partition("=")
        if name not in download.ARCHIVES or len(value) != 32:
            raise cli.InputError(f"--md5={entry}: give NAME=MD5 in 32 hexadecimal digits")
        checksums[name] = value.lower()
    paths = download.download_coco(_OUTPUT_DIR.value, _FILES.value, _BASE.value, checksums)
    for split in ("train", "val"):
        if split in paths:
            labels = os.path.join(_OUTPUT_DIR.value, "annotations", f"person_keypoints_{split}2017.json")
            print(
                f"python -m tfrecords_tools.write_coco --annotations={labels} --images={paths[split]} "
                f"--output_dir=records --split={split}"
            )


def console():
    cli.run(main, FLAGS, __doc__, tensorflow=False)


if __name__ == "__main__":
    console()
