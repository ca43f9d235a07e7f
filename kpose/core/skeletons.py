"""Skeleton tables: the joints of a skeleton, their left/right pairs, limbs and OKS sigmas.

All other modules read the number of joints, the pairs and the limbs from these tables. A table is
one of `SKELETONS`, or comes from a file or a COCO category (`kpose.core.skeleton_files`).
"""

import dataclasses
import functools

from kpose.core.errors import InputError

# Sigma of a joint that has none of its own: the mean of COCO's 17.
DEFAULT_SIGMA = 0.067
# Largest number of joints; a larger one is a mistake in the file.
MAX_JOINTS = 1000
# The name that means: the skeleton of the data.
AUTO = "auto"


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """The table of one skeleton.

    Attributes:
        name: its name in recipes and records.
        joints: K joint names, in the order of the labels.
        pairs: (left, right) joint indices; left and right are those of the person.
        limbs: limb group -> ((joint, joint), ...), the groups for which PCP is reported; {}: there
            is no PCP.
        torso: two joints whose distance is the torso diameter, the unit of PDJ
            (Sapp and Taskar, "MODEC", CVPR 2013): left shoulder and right hip. (): the unit is the
            longer side of the box.
        upper: joints of the upper body, for half-body augmentation; (): there is none.
        bones: (joint, joint) lines to draw.
        sigmas: K standard deviations of human labels, the constants of OKS
            (https://cocodataset.org/#keypoints-eval), in units of the root of the person's area;
            (): `DEFAULT_SIGMA` for every joint.

    Raises:
        InputError: a length is wrong, a sigma is not positive, an index is out of range, two joints
            have the same name, or a joint is in two pairs.
    """

    name: str
    joints: tuple
    pairs: tuple = ()
    limbs: dict = dataclasses.field(default_factory=dict)
    torso: tuple = ()
    upper: tuple = ()
    bones: tuple = ()
    sigmas: tuple = ()

    def __post_init__(self):
        k = len(self.joints)
        if not 1 <= k <= MAX_JOINTS:
            raise InputError(f"skeleton {self.name!r}: {k} joints: it needs between 1 and {MAX_JOINTS}")
        if self.sigmas and len(self.sigmas) != k:
            raise InputError(f"skeleton {self.name!r}: {len(self.sigmas)} sigmas for {k} joints")
        if not all(0 < sigma < float("inf") for sigma in self.sigmas):
            raise InputError(f"skeleton {self.name!r}: its sigmas must be positive numbers")
        twice = sorted({str(joint) for joint in self.joints if self.joints.count(joint) > 1})
        if twice:
            raise InputError(f"skeleton {self.name!r}: two joints have the same name, {twice[0]!r}")
        lines = [*([self.torso] if self.torso else ()), *self.pairs, *self.bones, *self.limb_list]
        for line in lines:
            if len(line) != 2 or line[0] == line[1] or not all(0 <= j < k for j in line):
                raise InputError(f"skeleton {self.name!r}: {line} is not a pair of two joints in 0..{k - 1}")
        if len(set(self.upper)) != len(self.upper) or not all(0 <= j < k for j in self.upper):
            raise InputError(
                f"skeleton {self.name!r}: the upper body {self.upper} is not a set of joints in 0..{k - 1}"
            )
        paired = [j for pair in self.pairs for j in pair]
        if len(set(paired)) != len(paired):
            raise InputError(f"skeleton {self.name!r}: a joint is in two left/right pairs")

    @functools.cached_property
    def oks_sigmas(self):
        """[K] sigmas of OKS: `sigmas`, or `DEFAULT_SIGMA` for every joint."""
        return self.sigmas or (DEFAULT_SIGMA,) * self.num_joints

    @functools.cached_property
    def is_person(self):
        """Whether it is a person's: it has at least four joints of COCO's body, by their names."""
        return len({"shoulder", "elbow", "wrist", "hip", "knee", "ankle"} & {_part(j) for j in self.joints}) >= 4

    @property
    def num_joints(self):
        """K, the number of joints."""
        return len(self.joints)

    @property
    def limb_list(self):
        """[L] pairs: the limbs of all groups, in the order of `limbs`."""
        return tuple(limb for group in self.limbs.values() for limb in group)

    @functools.cached_property
    def limb_names(self):
        """[L] names in the order of `limb_list`, such as "left_upper_arm".

        If the sides do not distinguish the limbs of a group, they are numbered: "spine_1".
        """
        names = []
        for group, limbs in self.limbs.items():
            sides = [self.sides[limb[0]] for limb in limbs]
            distinct = len(set(sides)) == len(limbs) and "middle" not in sides
            name = group.removesuffix("s")
            names += [f"{side}_{name}" if distinct else f"{name}_{i + 1}" for i, side in enumerate(sides)]
        return tuple(names)

    @functools.cached_property
    def flip_order(self):
        """[K] indices: after a mirroring, joint k is the former joint `flip_order[k]`."""
        order = list(range(self.num_joints))
        for left, right in self.pairs:
            order[left], order[right] = right, left
        return tuple(order)

    @functools.cached_property
    def sides(self):
        """[K] of "left", "right" or "middle": the side of each joint."""
        sides = ["middle"] * self.num_joints
        for left, right in self.pairs:
            sides[left], sides[right] = "left", "right"
        return tuple(sides)


def _part(joint):
    """The name of a joint without its side: "left_shoulder" -> "shoulder"."""
    return joint.lower().replace("left", "").replace("right", "").strip("_- .")


COCO = Skeleton(
    name="coco",
    joints=(
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    ),
    pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    limbs={
        "upper_arms": ((5, 7), (6, 8)),
        "lower_arms": ((7, 9), (8, 10)),
        "upper_legs": ((11, 13), (12, 14)),
        "lower_legs": ((13, 15), (14, 16)),
    },
    torso=(5, 12),
    upper=tuple(range(11)),
    bones=(
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (5, 6),
        (5, 11),
        (6, 12),
        (11, 12),
        (5, 7),
        (7, 9),
        (6, 8),
        (8, 10),
        (11, 13),
        (13, 15),
        (12, 14),
        (14, 16),
    ),
    # From the COCO keypoint evaluation.
    sigmas=(
        0.026,
        0.025,
        0.025,
        0.035,
        0.035,
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
    ),
)

# Leeds Sports Pose (Johnson and Everingham, BMVC 2010), in the order of its labels.
LSP = Skeleton(
    name="lsp",
    joints=(
        "right_ankle",
        "right_knee",
        "right_hip",
        "left_hip",
        "left_knee",
        "left_ankle",
        "right_wrist",
        "right_elbow",
        "right_shoulder",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
        "neck",
        "head_top",
    ),
    pairs=((5, 0), (4, 1), (3, 2), (11, 6), (10, 7), (9, 8)),
    limbs={
        "upper_arms": ((9, 10), (8, 7)),
        "lower_arms": ((10, 11), (7, 6)),
        "upper_legs": ((3, 4), (2, 1)),
        "lower_legs": ((4, 5), (1, 0)),
    },
    torso=(9, 2),
    upper=tuple(range(6, 14)),
    bones=(
        (0, 1),
        (1, 2),
        (2, 3),
        (3, 4),
        (4, 5),
        (6, 7),
        (7, 8),
        (8, 9),
        (9, 10),
        (10, 11),
        (8, 2),
        (9, 3),
        (8, 12),
        (9, 12),
        (12, 13),
    ),
    # Those of COCO; for neck and head top those of CrowdPose (Li et al., CVPR 2019).
    sigmas=(0.089, 0.087, 0.107, 0.107, 0.087, 0.089, 0.062, 0.072, 0.079, 0.079, 0.072, 0.062, 0.079, 0.079),
)

SKELETONS = {table.name: table for table in (COCO, LSP)}


def get(name):
    """The skeleton table of a name.

    Raises:
        InputError: the name is unknown.
    """
    if name not in SKELETONS:
        raise InputError(
            f"unknown skeleton {name!r}: use one of {', '.join(sorted(SKELETONS))}, or a .json or .yaml file with its "
            "joints"
        )
    return SKELETONS[name]
