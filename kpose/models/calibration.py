"""The calibration of scores: two maps that turn a network's scores into probabilities.

    p = sigmoid(slope * logit(s) + intercept),  slope > 0

where s is the score of the network in (0, 1). One map is for the scores of all joints, another for
the scores of persons (Platt, "Probabilistic outputs for support vector machines", 1999; on the
logit of a score it is the map of Kull, Silva Filho and Flach, "Beta calibration", AISTATS 2017, with
equal parameters). Both are strictly increasing, so they keep every ranking.
`kpose.metrics.calibration` fits them.
"""

import dataclasses
import math

from keras import ops

from kpose.core.errors import InputError

# Scores are moved into [LIMIT, 1 - LIMIT]: the logits of 0 and 1 are infinite.
LIMIT = 1e-6
# What calibrated scores are, for cards and descriptions.
OF_JOINTS = "probability that the OKS of a labelled joint alone is 0.5 or more"
OF_PERSONS = "expected OKS of the person"


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The calibration of a network's scores.

    Args:
        joints: (slope, intercept) for the scores of joints.
        persons: (slope, intercept) for the scores of persons.
        facts: dict of JSON values: what it was fitted on, and how well it fits.

    Raises:
        InputError: a slope is not positive, or a number is not finite.
    """

    joints: tuple
    persons: tuple
    facts: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for what, (slope, intercept) in (("joints", self.joints), ("persons", self.persons)):
            if not (slope > 0 and math.isfinite(slope) and math.isfinite(intercept)):
                raise InputError(
                    f"calibration of {what}: the slope is {slope:g} and the intercept {intercept:g}: both must be "
                    "finite, and the slope above 0"
                )

    def of_joints(self, scores):
        """Probabilities, of any shape, from the network's scores of joints."""
        return _mapped(scores, *self.joints)

    def of_persons(self, scores):
        """Expected OKS, of any shape, from the network's scores of persons."""
        return _mapped(scores, *self.persons)

    def to_fields(self):
        """The dict of JSON values that `of_fields` reads."""
        maps = {"joints": (OF_JOINTS, self.joints), "persons": (OF_PERSONS, self.persons)}
        return {
            name: {"meaning": meaning, "slope": slope, "intercept": intercept}
            for name, (meaning, (slope, intercept)) in maps.items()
        } | {"facts": self.facts}


def of_fields(fields, source):
    """The `Calibration` of a dict that `Calibration.to_fields` wrote; None for None.

    Args:
        fields: the dict.
        source: the file, for errors.

    Raises:
        InputError: the dict is damaged.
    """
    if fields is None:
        return None
    try:
        maps = [(float(fields[k]["slope"]), float(fields[k]["intercept"])) for k in ("joints", "persons")]
        return Calibration(*maps, dict(fields.get("facts") or {}))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, InputError):
        raise InputError(
            f"{source}: damaged: it holds no calibration (a positive slope and an intercept for joints and persons): "
            "calibrate again"
        ) from None


def _mapped(scores, slope, intercept):
    scores = ops.clip(ops.cast(scores, "float32"), LIMIT, 1.0 - LIMIT)
    return ops.sigmoid(slope * (ops.log(scores) - ops.log(1.0 - scores)) + intercept)
