"""COCO keypoint results, and OKS AP by pycocotools."""

import contextlib
import dataclasses
import io

import numpy as np

from kpose.core import geometry
from kpose.core.errors import InputError
from kpose.core.skeletons import DEFAULT_SIGMA

# The id of the category "person" in COCO.
PERSON_CATEGORY = 1
# Before the names of the arrays of `Matches` in a file.
ARRAYS_PREFIX = "ap_"
OKS_NAMES = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")


def sigmas_of(skeleton):
    """The entry `oks_sigmas` of metrics.json: [K] sigmas, or what the default is."""
    return list(skeleton.sigmas) if skeleton.sigmas else f"default {DEFAULT_SIGMA:g}"


def note_on_sigmas(sigmas):
    """What to say beside a figure of OKS: " (sigmas: default 0.067)", or "" for a skeleton's own.

    Args:
        sigmas: from `sigmas_of`; None: not known.
    """
    return f" (sigmas: {sigmas})" if isinstance(sigmas, str) else ""


def coco_results(image_ids, boxes, keypoints, scores):
    """Predictions as COCO keypoint results, in the order given.

    Args:
        image_ids: N ids.
        boxes: N boxes, xywh in original pixels, as they were given.
        keypoints: [N, K, 3]: x, y in the original frame and the joint's score.
        scores: [N] the persons' scores.

    Returns:
        N dicts with image_id, category_id, bbox, keypoints (3K numbers) and score. As in COCO's
        labels, the keypoints are pixel indices: half a pixel less than in the original frame.
    """
    # Without persons, there is no K.
    keypoints = np.asarray(keypoints, np.float64).reshape(len(scores), -1, 3) if len(scores) else np.zeros((0, 1, 3))
    keypoints = np.concatenate([geometry.to_indices(keypoints[..., :2]), keypoints[..., 2:]], -1)
    return [
        {
            "image_id": image_id,
            "category_id": PERSON_CATEGORY,
            "bbox": [float(value) for value in box],
            "keypoints": [round(float(value), 4) for value in np.ravel(person)],
            "score": float(score),
        }
        for image_id, box, person, score in zip(image_ids, boxes, keypoints, scores, strict=True)
    ]


@dataclasses.dataclass(frozen=True)
class Matches:
    """What COCOeval found in each image: all that AP over any multiset of the images needs.

    Attributes:
        image: [D] the number of each result's image, from 0; the highest score first.
        correct: [T, D] bool, the result matches a counted person at OKS threshold t.
        wrong: [T, D] bool, the result matches no person there.
        persons: [I] number of counted persons of each image.
        recalls: [R] recalls at which the precision is averaged.
    """

    image: np.ndarray
    correct: np.ndarray
    wrong: np.ndarray
    persons: np.ndarray
    recalls: np.ndarray

    @classmethod
    def of(cls, evaluation):
        """Those of a `COCOeval` after `evaluate`, over the first of its areas."""
        found = evaluation.evalImgs[: len(evaluation.params.imgIds)]
        rows = [(number, entry) for number, entry in enumerate(found) if entry is not None]
        persons = np.zeros(len(found))
        for number, entry in rows:
            persons[number] = np.sum(np.asarray(entry["gtIgnore"]) == 0)
        # An image without results has arrays of no columns.
        thresholds = len(evaluation.params.iouThrs)
        matched, ignored = (
            np.concatenate([np.zeros((thresholds, 0)), *(entry[name] for _, entry in rows)], 1).astype(bool)
            for name in ("dtMatches", "dtIgnore")
        )
        order = np.argsort(-np.array([score for _, entry in rows for score in entry["dtScores"]]), kind="mergesort")
        image = np.array([number for number, entry in rows for _ in entry["dtScores"]], np.int64)
        correct, wrong = matched & ~ignored, ~matched & ~ignored
        return cls(image[order], correct[:, order], wrong[:, order], persons, evaluation.params.recThrs)

    def arrays(self):
        """{name: array}, for a file of arrays: the fields, each with `ARRAYS_PREFIX` before its name."""
        return {f"{ARRAYS_PREFIX}{field.name}": getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def of_arrays(cls, arrays):
        """Those of `arrays`, a dict that may hold other arrays too; None if a field is missing."""
        names = [field.name for field in dataclasses.fields(cls)]
        if not all(f"{ARRAYS_PREFIX}{name}" in arrays for name in names):
            return None
        return cls(**{name: arrays[f"{ARRAYS_PREFIX}{name}"] for name in names})

    def average_precision(self, weights):
        """COCO's AP over images of which each counts several times.

        Args:
            weights: [I] how often each image counts.

        Returns:
            [T] AP at each OKS threshold; NaN if no person counts.
        """
        persons = weights @ self.persons
        if not persons:
            return np.full(len(self.correct), np.nan)
        counted = weights[self.image]
        correct, wrong = (np.cumsum(flags * counted, 1) for flags in (self.correct, self.wrong))
        precision = correct / np.maximum(correct + wrong, 1)
        precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        # Beyond the highest recall, the precision is 0.
        precision = np.concatenate([precision, np.zeros((len(precision), 1))], 1)
        places = [np.searchsorted(row, self.recalls, side="left") for row in correct / persons]
        return np.array([row[place].mean() for row, place in zip(precision, places, strict=True)])


def oks_ap(labels, results, annotation_ids, skeleton, image_ids=None):
    """COCO's keypoint AP and AR over the chosen persons: the metrics of `evaluate_oks`."""
    return evaluate_oks(labels, results, annotation_ids, skeleton, image_ids)[0]


def evaluate_oks(labels, results, annotation_ids, skeleton, image_ids=None):
    """COCO's keypoint AP and AR over the chosen persons.

    COCOeval gets a copy in which images and annotations are numbered from 1 and all are of one
    category: it takes an annotation with the id 0 for none, and compares categories by their ids.
    The joints of the copy are pixel indices again, as in COCO's files.

    Args:
        labels: `coco_files.Labels`.
        results: COCO keypoint results; their `image_id` is that of the labels' rows.
        annotation_ids: ids of the persons' rows. Other persons of the file are ignored, as COCO
            ignores crowds.
        skeleton: the `Skeleton` that has the sigmas.
        image_ids: the images to evaluate on; None: those with results.

    Returns:
        The ten metrics of `pycocotools.cocoeval.COCOeval` by name, None for a metric without
        persons; and the `Matches` in each of the images.

    Raises:
        InputError: the file lacks some of the persons.
    """
    # Imported here: pycocotools imports matplotlib, and prediction needs only `coco_results`.
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    wanted = {int(i) for i in annotation_ids}
    missing = wanted - {person.id for person in labels.persons}
    if missing:
        raise InputError(
            f"{labels.path}: {len(missing)} of the {len(wanted)} persons in the records are not in it: "
            "give the annotations that the records were written from"
        )
    numbers = {image_id: number for number, image_id in enumerate(sorted(labels.images), 1)}
    chosen = {result["image_id"] for result in results} if image_ids is None else image_ids
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": number} for number in numbers.values()],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [
                _annotation(number, person, numbers[person.image_id], person.id in wanted)
                for number, person in enumerate(labels.persons, 1)
            ],
        }
        truth.createIndex()
        renumbered = [result | {"image_id": numbers[result["image_id"]], "category_id": 1} for result in results]
        evaluation = COCOeval(truth, truth.loadRes(renumbered), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(skeleton.oks_sigmas)
        evaluation.params.imgIds = sorted(numbers[image_id] for image_id in chosen)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = zip(OKS_NAMES, evaluation.stats, strict=True)
    return {name: None if value < 0 else float(value) for name, value in values}, Matches.of(evaluation)


class RecordsEvaluation:
    """COCO's keypoint AP of one prediction a person, with the labels of records as ground truth.

    It is COCOeval's, over all areas: the persons of an image compete for their predictions. The
    persons that are not given do not exist for it.

    Args:
        image_ids: [N] ids.
        boxes: [N, 4] xywh in pixels.
        areas: [N] in square pixels.
        keypoints: [N, K, 3]: x, y in pixels and the visibility flag.
        skeleton: the `Skeleton` that has the sigmas.
    """

    def __init__(self, image_ids, boxes, areas, keypoints, skeleton):
        from pycocotools.coco import COCO

        self._image_numbers = (np.unique(image_ids, return_inverse=True)[1] + 1).tolist()
        self._sigmas = np.array(skeleton.oks_sigmas)
        self._truth = COCO()
        self._truth.dataset = {
            "images": [{"id": number} for number in sorted(set(self._image_numbers))],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [
                {
                    "id": number,
                    "image_id": image,
                    "category_id": 1,
                    "iscrowd": 0,
                    "area": float(area),
                    "bbox": box.tolist(),
                    "keypoints": person.ravel().tolist(),
                    "num_keypoints": int((person[:, 2] > 0).sum()),
                }
                for number, (image, box, area, person) in enumerate(
                    zip(self._image_numbers, *(np.asarray(a, float) for a in (boxes, areas, keypoints)), strict=True), 1
                )
            ],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            self._truth.createIndex()

    def average_precision(self, keypoints, scores):
        """The AP as a fraction; None if no person has a labelled joint.

        Args:
            keypoints: [N, K, 2] predictions in pixels, in the order of the persons. A joint that is
                not finite is infinitely wrong.
            scores: [N].
        """
        from pycocotools.cocoeval import COCOeval

        # COCOeval takes NaN for a match.
        keypoints = np.nan_to_num(np.asarray(keypoints, float), nan=1e12, posinf=1e12, neginf=-1e12)
        flagged = np.concatenate([keypoints, np.ones_like(keypoints[..., :1])], -1)
        results = [
            {"image_id": image, "category_id": 1, "keypoints": person.ravel().tolist(), "score": float(score)}
            for image, person, score in zip(self._image_numbers, flagged, np.nan_to_num(scores), strict=True)
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(self._truth, self._truth.loadRes(results), "keypoints")
            evaluation.params.kpt_oks_sigmas = self._sigmas
            # The other areas of COCOeval would double the time.
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluation.evaluate()
            evaluation.accumulate()
        precision = evaluation.eval["precision"]
        valid = precision[precision > -1]
        return float(valid.mean()) if valid.size else None


def _annotation(number, person, image_number, counted):
    """A row as COCOeval's annotation. 0 labelled joints leave a person out of the evaluation."""
    box = np.zeros(4) if person.box is None else person.box
    keypoints = person.keypoints.copy()
    labelled = keypoints[:, 2] > 0
    keypoints[labelled, :2] = geometry.to_indices(keypoints[labelled, :2])
    return {
        "id": number,
        "image_id": image_number,
        "category_id": 1,
        "iscrowd": int(person.crowd),
        "area": person.area,
        "bbox": box.tolist(),
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": person.num_labelled if counted else 0,
    }
