"""What the converters of other data share: joints and image sizes in, a COCO keypoint file out."""

import collections

import numpy as np

from kpose.core import files
from kpose.core.errors import InputError

# OKS wants a person's area, which these sources do not know. In COCO a person covers about half of its box.
AREA_OF_BOX = 0.53

# Labels that cannot be learnt from; how many there were is said in the end.
NOT_FINITE = "joints without finite coordinates"
OUTSIDE = "joints outside their image"


def check_options(output, margin):
    """Refuses bad flags before anything slow starts.

    Args:
        output: the COCO file to write.
        margin: see `box_of_joints`.

    Raises:
        InputError: the output is not called .json, or the margin is no share of a person's size.
    """
    if not output.endswith(".json"):
        raise InputError(f"--output={output}: give the name of a file that ends in .json")
    if not 0 <= margin <= 10:
        raise InputError(f"--margin={margin}: give a share of the person's size, between 0 and 10")


def category(skeleton):
    """COCO's category of persons with a skeleton's joints; its lines count joints from 1."""
    return {
        "supercategory": "person",
        "id": 1,
        "name": "person",
        "keypoints": list(skeleton.joints),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.bones],
    }


def box_of_joints(points, flags, size, margin):
    """The box around a person's labelled joints, with room for the flesh around them.

    Args:
        points: [K, 2] x, y in pixels.
        flags: [K] visibility flags; joints with 0 do not count.
        size: (width, height) of the image in pixels, at which the box is cut.
        margin: the room at each side, as a share of the longer side of the joints' own box.

    Returns:
        [x, y, width, height] in pixels, to a tenth; None where they are too few or too close together for a box.
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
    """A COCO keypoint data set in the making.

    Args:
        skeleton: the `Skeleton` of its persons.

    Attributes:
        counts: Counter of joints that were labelled at the source and are not any more: `NOT_FINITE`, `OUTSIDE`.
    """

    def __init__(self, skeleton):
        self.skeleton = skeleton
        self.counts = collections.Counter()
        self._images = []
        self._persons = []

    def trust(self, points, flags, size):
        """The flags of joints that can be learnt from: 0 where a labelled joint is nowhere, or outside the image.

        Args:
            points: [K, 2] x, y in pixels.
            flags: [K] visibility flags.
            size: (width, height) of the image in pixels; its edges belong to it.

        Returns:
            [K] int flags; what was taken away is added to `counts`.
        """
        labelled = np.asarray(flags) > 0
        finite = np.isfinite(points).all(-1)
        # Infinite coordinates and NaN are not inside either, and compare without a warning.
        inside = ((points >= 0) & (points <= size)).all(-1)
        self.counts[NOT_FINITE] += int((labelled & ~finite).sum())
        self.counts[OUTSIDE] += int((labelled & finite & ~inside).sum())
        return np.where(labelled & inside, flags, 0).astype(int)

    def add_image(self, number, file_name, size):
        """Adds an image of (width, height) pixels under the id `number`."""
        self._images.append({"id": number, "file_name": file_name, "width": size[0], "height": size[1]})

    def add_person(self, number, image_id, points, flags, box):
        """Adds a person.

        Args:
            number: its id.
            image_id: the id of its image.
            points: [K, 2] x, y in pixels, of the skeleton's joints.
            flags: [K] visibility flags as `trust` gives them; unlabelled joints are written as 0, 0, 0.
            box: [x, y, width, height] in pixels.
        """
        keypoints = []
        for (x, y), flag in zip(np.asarray(points).tolist(), np.asarray(flags).tolist(), strict=True):
            keypoints += [x, y, flag] if flag else [0, 0, 0]
        self._persons.append(
            {
                "id": number,
                "image_id": image_id,
                "category_id": 1,
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
            description: what it is, for readers of the file.

        Returns:
            Lines that say what was written, and what of the source was not taken over.

        Raises:
            InputError: there are no persons to write.
        """
        if not self._persons:
            raise InputError(f"{path}: no person has joints that make a box: there is nothing to write")
        data = {
            "info": {"description": description},
            "licenses": [],
            "images": self._images,
            "annotations": self._persons,
            "categories": [category(self.skeleton)],
        }
        files.write_json(path, data, indent=None)
        flags = np.array([person["keypoints"][2::3] for person in self._persons])
        lines = [
            f"{path}: {len(self._images):,} images, {len(self._persons):,} persons, "
            f"{(flags > 0).sum():,} of {flags.size:,} joints labelled ({(flags == 1).sum():,} occluded)"
        ]
        taken = [f"{count:,} {what}" for what, count in self.counts.items() if count]
        return lines + ([f"labelled at the source, unlabelled here: {', '.join(taken)}"] if taken else [])
