"""The people that a model finds in an image: keypoints, scores and boxes, and what to do with them."""

import dataclasses
import difflib
import os
from typing import NamedTuple

import numpy as np

from kpose.core import files
from kpose.core.errors import InputError
from kpose.core.skeletons import Skeleton
from kpose.drawing import persons
from kpose.metrics import coco
from kpose.predict import inputs

# Suffixes of the files that `People.save` writes.
PICTURES = (".jpg", ".jpeg", ".png")
RESULTS = ".json"
# Persons in a text of `People`.
_SHOWN = 10


class Joint(NamedTuple):
    """One joint of a person: x and y in pixels of the image, and its score in 0..1."""

    x: float
    y: float
    score: float


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Person:
    """One person.

    Attributes:
        keypoints: [K, 3] float32: x, y in pixels of the image, and the joint's score.
        score: the person's score in 0..1, times `box_score` if there is one.
        box: [4] float32 xywh in pixels.
        box_score: the detector's score; None without a detector.
        skeleton: the `Skeleton` of the keypoints.
        track_id: the person's number in a video, from 1; None: not tracked.
        calibrated: as for `People`.
    """

    keypoints: np.ndarray
    score: float
    box: np.ndarray
    box_score: float | None
    skeleton: Skeleton
    track_id: int | None = None
    calibrated: bool = False

    def joint(self, name):
        """Returns a `Joint` by its name, such as "left_wrist".

        Raises:
            InputError: the skeleton has no such joint.
        """
        joints = self.skeleton.joints
        if name not in joints:
            near = difflib.get_close_matches(str(name), joints, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the joints are {', '.join(joints)}"
            raise InputError(f"there is no joint {name!r}: {hint}")
        return Joint(*map(float, self.keypoints[joints.index(name)]))

    def __repr__(self):
        return f"Person({self._text()})"

    def _text(self):
        x, y, width, height = self.box
        least = persons.joint_threshold(self.calibrated)
        shown = int((self.keypoints[:, 2] >= least).sum())
        track = "" if self.track_id is None else f"track {self.track_id}, "
        return (
            f"{track}score {self.score:.2f}, box x {x:.0f} y {y:.0f} width {width:.0f} height {height:.0f}, {shown} of "
            f"{len(self.keypoints)} joints with a score of {least:g} or more"
        )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class People:
    """The persons in one image: a sequence of `Person`, and arrays of all of them.

    An index gives a `Person`; a slice, or an array of indices or of booleans, gives `People`.

    Attributes:
        keypoints: [N, K, 3] float32: x, y in pixels of the image, and the joint's score.
        scores: [N] float32: the persons' scores in 0..1, times `box_scores` if there are any.
        boxes: [N, 4] float32 xywh in pixels: the given boxes in their order, or the detected boxes,
            highest score first.
        box_scores: [N] float32: the detector's scores; None without a detector.
        skeleton: the `Skeleton` of the keypoints.
        name: the image's name: its path or URL, or "the image".
        size: (width, height) of the image in pixels.
        error: why the image could not be read, one line; None: it was read.
        source: the `inputs.Source` that `draw` reads again; None: there is none.
        upright: whether the pixels are those of the image turned by its EXIF orientation.
        track_ids: [N] int64: the persons' numbers in a video, from 1; None: they are not tracked.
        calibrated: whether the score of a joint is the probability that it is right, and the score
            of a person its expected OKS (`kpose.models.calibration`). Otherwise they only rank.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    box_scores: np.ndarray | None = None
    skeleton: Skeleton | None = None
    name: str = "the image"
    size: tuple | None = None
    error: str | None = None
    source: inputs.Source | None = None
    upright: bool = True
    track_ids: np.ndarray | None = None
    calibrated: bool = False

    def __len__(self):
        return len(self.scores)

    def __bool__(self):
        return len(self) > 0

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index):
        single = isinstance(index, int | np.integer)
        if not single and not isinstance(index, slice):
            index = np.asarray(index, None if len(index) else int)
        chosen = {name: array[index] for name, array in self._arrays().items()}
        if not single:
            return dataclasses.replace(self, **chosen)
        box_score, track_id = chosen.get("box_scores"), chosen.get("track_ids")
        return Person(
            chosen["keypoints"],
            float(chosen["scores"]),
            chosen["boxes"],
            None if box_score is None else float(box_score),
            self.skeleton,
            None if track_id is None else int(track_id),
            self.calibrated,
        )

    def _arrays(self):
        """The arrays [N, ...] by name, without those that are None."""
        names = ("keypoints", "scores", "boxes", "box_scores", "track_ids")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def __repr__(self):
        of_size = f", {self.size[0]} x {self.size[1]} pixels" if self.size else ""
        lines = [f"People({len(self)} in {self.name}{of_size})"]
        if self.error:
            return f"People(not read: {self.error})"
        lines += [f"  {index}: {person._text()}" for index, person in enumerate(self[:_SHOWN])]
        if len(self) > _SHOWN:
            lines.append(f"  ... and {len(self) - _SHOWN} more")
        return "\n".join(lines)

    def to_coco(self, image_id=None):
        """Returns COCO keypoint results, a list of dicts, as `keypoints.json` has them.

        As in COCO's files, the keypoints are pixel indices: half a pixel less than `keypoints`.

        Args:
            image_id: id of the image; None: the number at the end of the file's name, as in
                000000000139.jpg, or 1 if there is none.
        """
        if image_id is None:
            number = inputs.number_of_file(self.name)
            image_id = 1 if number is None else number
        results = coco.coco_results([image_id] * len(self), self.boxes, self.keypoints, self.scores)
        tracks = [{}] * len(self) if self.track_ids is None else [{"track_id": int(one)} for one in self.track_ids]
        return [result | {"file_name": self.name} | track for result, track in zip(results, tracks, strict=True)]

    def to_numpy(self):
        """Returns a dict of the arrays by name; `box_scores` only with a detector, `track_ids` of a video."""
        return self._arrays()

    def to_dataframe(self):
        """Returns a pandas DataFrame with one row per person.

        Its columns are file_name, score, box_score, box_x, box_y, box_width, box_height, and for
        each joint its name with _x, _y and _score, in pixels of the image.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise InputError("to_dataframe needs the package pandas: pip install pandas") from None
        missing = np.full(len(self), np.nan, np.float32)
        columns = {
            "file_name": [self.name] * len(self),
            "score": self.scores,
            "box_score": missing if self.box_scores is None else self.box_scores,
        }
        columns |= {f"box_{part}": self.boxes[:, k] for k, part in enumerate(("x", "y", "width", "height"))}
        for k, joint in enumerate(self.skeleton.joints):
            columns |= {f"{joint}_{part}": self.keypoints[:, k, j] for j, part in enumerate(("x", "y", "score"))}
        return pandas.DataFrame(columns)

    def draw(self, image=None, float_max=None):
        """Returns a PIL image: the image with boxes, scores and skeletons.

        Args:
            image, float_max: one image, as for `Model.predict`; None: the predicted image, which is
                read again if it is a file.

        Raises:
            InputError: the image cannot be read, has another size, or is not known.
        """
        return draw(self.source if image is None else image, self, float_max)

    def save(self, path):
        """Writes the drawn image (.jpg or .png) or the COCO results (.json).

        Args:
            path: the file; an existing one is replaced, but not the predicted image.

        Raises:
            InputError: the suffix is another one, the file is the predicted image or cannot be
                written, or as `draw`.
        """
        path = os.fspath(path)
        suffix = os.path.splitext(path)[1].lower()
        if suffix not in (*PICTURES, RESULTS):
            raise InputError(f"{path}: give a name that ends in {', '.join(PICTURES)} or {RESULTS}")
        original = None if self.source is None else self.source.path
        if original and os.path.exists(path) and os.path.exists(original) and os.path.samefile(path, original):
            raise InputError(f"{path}: this is the predicted image: give another name")
        try:
            if suffix == RESULTS:
                files.write_json(path, self.to_coco(), indent=None)
            else:
                persons.save_picture(path, self.draw())
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None


def draw(image, people, float_max=None):
    """Returns a PIL image: an image with the boxes, the scores and the skeletons of people.

    Args:
        image, float_max: one image, as for `Model.predict`.
        people: its `People`.

    Raises:
        InputError: the image cannot be read, has another size, or is not known.
    """
    if image is None:
        raise InputError(f"{people.error or 'the image of these people is not known: give it'}")
    if isinstance(image, inputs.Source):
        source = image
    else:
        sources, single = inputs.gather(image, float_max)
        if not single:
            raise InputError("draw takes one image")
        source = sources[0]
    pixels = source.read(people.upright).pixels
    if people.size and pixels.shape[1::-1] != tuple(people.size):
        raise InputError(
            f"{source.name} has {pixels.shape[1]} x {pixels.shape[0]} pixels, and the people are in an image of "
            f"{people.size[0]} x {people.size[1]}"
        )
    return persons.picture_of_people(pixels, people, people.skeleton, people.track_ids)
