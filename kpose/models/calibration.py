"""The calibration of scores: two maps that turn a network's scores into probabilities.

    p = sigmoid(a log(s) - b log(1 - s) + c),  a >= 0, b >= 0, a + b > 0

where s is the score of the network in (0, 1): beta calibration (Kull, Silva Filho and Flach, "Beta
calibration", AISTATS 2017). One map is for the scores of all joints, another for the scores of
persons. Both are strictly increasing, so they keep every ranking. `kpose.metrics.calibration` fits
them.
"""

import dataclasses
import math

from keras import ops

from kpose.core.errors import InputError

# Scores are moved into [LIMIT, 1 - LIMIT]: the logarithm of 0 is infinite.
LIMIT = 1e-6
# What calibrated scores are, for cards and descriptions.
OF_JOINTS = "probability that the OKS of a labelled joint alone is 0.5 or more"
OF_PERSONS = "expected OKS of the person"


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The calibration of a network's scores.

    Args:
        joints: (a, b, c) for the scores of joints.
        persons: (a, b, c) for the scores of persons.
        facts: dict of JSON values: what it was fitted on, and how well it fits.

    Raises:
        InputError: a or b is negative, both are 0, or a number is not finite.
    """

    joints: tuple
    persons: tuple
    facts: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for what, (a, b, c) in (("joints", self.joints), ("persons", self.persons)):
            if not (min(a, b) >= 0 and a + b > 0 and all(map(math.isfinite, (a, b, c)))):
                raise InputError(
                    f"calibration of {what}: a, b and c are {a:g}, {b:g} and {c:g}: all must be finite, a and b at "
                    "least 0, and one of them above 0"
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
            name: {"meaning": meaning} | dict(zip("abc", numbers, strict=True))
            for name, (meaning, numbers) in maps.items()
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
        maps = [tuple(float(fields[k][name]) for name in "abc") for k in ("joints", "persons")]
        return Calibration(*maps, dict(fields.get("facts") or {}))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, InputError):
        raise InputError(
            f"{source}: damaged: it holds no calibration (numbers a, b and c for joints and persons): calibrate again"
        ) from None


def _mapped(scores, a, b, c):
    scores = ops.clip(ops.cast(scores, "float32"), LIMIT, 1.0 - LIMIT)
    return ops.sigmoid(a * ops.log(scores) - b * ops.log(1.0 - scores) + c)
