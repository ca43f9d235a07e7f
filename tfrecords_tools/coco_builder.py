"""Builds COCO keypoint files from joints and image sizes.

Points are in the original frame of `kpose.core.geometry`. The file has pixel indices, as COCO's:
half a pixel less.
"""

import collections

import numpy as np

from kpose.core import files
from kpose.core.errors import InputError
from kpose.metrics.coco import PERSON_CATEGORY

# OKS needs the area of a person, which these sources do not have. In COCO a person covers about
# half of its box.
AREA_OF_BOX = 0.53

# Labels that are not used; their numbers are printed at the end.
NOT_FINITE = "joints without finite coordinates"
OUTSIDE = "joints outside their image"


def check_options(output, margin):
    """Checks flags before the conversion starts.

    Args:
        output: the COCO file to write.
        margin: see `box_of_joints`.

    Raises:
        InputError: the name of the output does not end in .json, it cannot be written, or the margin
            is out of bounds.
    """
    if not output.endswith(".json"):
        raise InputError(f"--output={output}: the name of the file must end in .json")
    files.check_file_for_output(output, "--output")
    if not 0 <= margin <= 10:
        raise InputError(f"--margin={margin}: give a number between 0 and 10, a share of the person's size")


def category(skeleton, name="person", flip_idx=None):
    """A COCO category with the joints of a skeleton, and its bones, which count from 1.

    Args:
        skeleton: a `Skeleton`, or another object with its `joints` and `bones`.
        name: name of the category.
        flip_idx: K indices: after a mirroring, joint k is the former joint `flip_idx[k]`. Written
            as the field `flip_idx`, which COCO does not have; None: there is no such field.
    """
    fields = {
        "supercategory": name,
        "id": PERSON_CATEGORY,
        "name": name,
        "keypoints": list(skeleton.joints),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.bones],
    }
    return fields if flip_idx is None else fields | {"flip_idx": list(flip_idx)}


def box_of_joints(points, flags, size, margin):
    """The box around the labelled joints of a person, with a margin.

    Args:
        points: [K, 2] x, y in the original frame.
        flags: [K] visibility flags; joints with flag 0 are ignored.
        size: (width, height) of the image in pixels; the box is clipped to it.
        margin: the margin on each side, as a share of the longer side of the joints' own box.

    Returns:
        [x, y, width, height] in pixels, rounded to 0.1; None if the box has no area.
    """
    labelled = np.asarray(points, np.float64)[np.asarray(flags) > 0]
    if not len(labelled):
        return None
    low, high = labelled.min(0), labelled.max(0)
    room = margin * (high - low).max()
    low, high = np.clip([low - room, high + room], 0, size)
    box = [round(float(value), 1) for value in (*low, *(high - low))]
    return box if min(box[2:]) > 0 else None


class Collection:
    """Images and persons of a COCO keypoint file.

    Args:
        skeleton: the `Skeleton` of the persons, or another object with its `joints` and `bones`.
        category_name: name of the persons' category.
        flip_idx: see `category`.

    Attributes:
        counts: Counter of joints that are labelled in the source but not here: `NOT_FINITE`,
            `OUTSIDE`.
    """

    def __init__(self, skeleton, category_name="person", flip_idx=None):
        self._category = category(skeleton, category_name, flip_idx)
        self.counts = collections.Counter()
        self._images = []
        self._persons = []

    def usable_flags(self, points, flags, size):
        """The visibility flags, with 0 for joints that are not finite or outside the image.

        Such joints are added to `counts`.

        Args:
            points: [K, 2] x, y in the original frame, or pixel indices.
            flags: [K] visibility flags.
            size: (width, height) of the image in pixels; a joint on its edge is inside. Some tools
                write the width itself as an index.

        Returns:
            [K] int flags.
        """
        labelled = np.asarray(flags) > 0
        finite = np.isfinite(points).all(-1)
        # Also False for infinite coordinates and NaN.
        inside = ((points >= 0) & (points <= size)).all(-1)
        self.counts[NOT_FINITE] += int((labelled & ~finite).sum())
        self.counts[OUTSIDE] += int((labelled & finite & ~inside).sum())
        return np.where(labelled & inside, flags, 0).astype(int)

    def add_image(self, number, file_name, size):
        """Adds an image.

        Args:
            number: its id.
            file_name: its name relative to the image folder.
            size: (width, height) in pixels.
        """
        self._images.append({"id": number, "file_name": file_name, "width": size[0], "height": size[1]})

    def add_person(self, number, image_id, indices, flags, box):
        """Adds a person.

        Args:
            number: its id.
            image_id: the id of its image.
            indices: [K, 2] x, y of the skeleton's joints as pixel indices, which are written.
            flags: [K] visibility flags from `usable_flags`; unlabelled joints are written as 0, 0,
                0.
            box: [x, y, width, height] in pixels.
        """
        keypoints = []
        for (x, y), flag in zip(np.asarray(indices).tolist(), np.asarray(flags).tolist(), strict=True):
            keypoints += [x, y, flag] if flag else [0, 0, 0]
        self._persons.append(
            {
                "id": number,
                "image_id": image_id,
                "category_id": PERSON_CATEGORY,
                "bbox": box,
                "area": round(AREA_OF_BOX * box[2] * box[3], 1),
                "iscrowd": 0,
                "num_keypoints": int((np.asarray(flags) > 0).sum()),
                "keypoints": keypoints,
            }
        )

    def write(self, path, description):
        """Writes the COCO file.

        Args:
            path: the .json file.
            description: description of the data, for the field `info`.

        Returns:
            Lines of text: what was written, and which labels of the source were not used.

        Raises:
            InputError: there are no persons.
        """
        if not self._persons:
            raise InputError(f"{path}: no person has enough joints for a box: nothing was written")
        data = {
            "info": {"description": description},
            "licenses": [],
            "images": self._images,
            "annotations": self._persons,
            "categories": [self._category],
        }
        files.write_json(path, data, indent=None)
        flags = np.array([person["keypoints"][2::3] for person in self._persons])
        lines = [
            f"{path}: {len(self._images):,} images, {len(self._persons):,} persons, "
            f"{(flags > 0).sum():,} of {flags.size:,} joints labelled ({(flags == 1).sum():,} occluded)"
        ]
        unused = [f"{count:,} {what}" for what, count in self.counts.items() if count]
        return lines + ([f"labelled in the source, unlabelled here: {', '.join(unused)}"] if unused else [])
