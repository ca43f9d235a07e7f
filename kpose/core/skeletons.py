"""Skeleton tables: everything the code needs to know about a set of joints.

One table describes a skeleton. No other module knows how many joints there are, which of them are mirror
images of each other or which pairs make a limb: they all read it here.
"""

import dataclasses
import functools

from kpose.core.errors import InputError

LIMB_GROUPS = ("upper_arms", "lower_arms", "upper_legs", "lower_legs")


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A set of joints and what is known about them.

    Attributes:
        name: the name recipes and records call it by.
        joints: K joint names, in label order.
        pairs: (left, right) joint indices, left and right being the person's own.
        limbs: the limb groups PCP is reported for; group name -> ((joint, joint), ...).
        torso: the two joints whose distance is the torso diameter, the unit of PDJ
            (Sapp and Taskar, "MODEC", CVPR 2013): left shoulder and right hip.
        upper: the joints of the upper body, for half-body augmentation.
        bones: (joint, joint) lines to draw.
        sigmas: K per-joint standard deviations of human labelling, the constants of OKS
            (https://cocodataset.org/#keypoints-eval), in units of the square root of the person's area.

    Raises:
        InputError: a table that contradicts itself (wrong length, index out of range, joint paired twice).
    """

    name: str
    joints: tuple
    pairs: tuple
    limbs: dict
    torso: tuple
    upper: tuple
    bones: tuple
    sigmas: tuple

    def __post_init__(self):
        k = len(self.joints)
        if len(self.sigmas) != k:
            raise InputError(f"skeleton {self.name!r}: {len(self.sigmas)} sigmas for {k} joints")
        if len(set(self.joints)) != k:
            raise InputError(f"skeleton {self.name!r}: a joint name is there twice")
        lines = [self.torso, *self.pairs, *self.bones, *self.limb_list]
        for line in lines:
            if len(line) != 2 or line[0] == line[1] or not all(0 <= j < k for j in line):
                raise InputError(f"skeleton {self.name!r}: {line} is no pair of two joints in 0..{k - 1}")
        if len(set(self.upper)) != len(self.upper) or not all(0 <= j < k for j in self.upper):
            raise InputError(f"skeleton {self.name!r}: the upper body {self.upper} is no set of joints in 0..{k - 1}")
        paired = [j for pair in self.pairs for j in pair]
        if len(set(paired)) != len(paired):
            raise InputError(f"skeleton {self.name!r}: a joint is in two left/right pairs")

    @property
    def num_joints(self):
        return len(self.joints)

    @property
    def limb_list(self):
        """All limbs of all groups, [L] pairs, in the order of `limbs`."""
        return tuple(limb for group in self.limbs.values() for limb in group)

    @functools.cached_property
    def limb_names(self):
        """[L] names in the order of `limb_list`: "left_upper_arm", or "spine_1" where no side tells limbs apart."""
        names = []
        for group, limbs in self.limbs.items():
            sides = [self.sides[limb[0]] for limb in limbs]
            told_apart = len(set(sides)) == len(limbs) and "middle" not in sides
            name = group.removesuffix("s")
            names += [f"{side}_{name}" if told_apart else f"{name}_{i + 1}" for i, side in enumerate(sides)]
        return tuple(names)

    @functools.cached_property
    def flip_order(self):
        """[K] indices: joint `flip_order[k]` of a mirrored person takes the place of joint k."""
        order = list(range(self.num_joints))
        for left, right in self.pairs:
            order[left], order[right] = right, left
        return tuple(order)

    @functools.cached_property
    def sides(self):
        """[K] of "left", "right" or "middle": whose side of the person a joint is on."""
        sides = ["middle"] * self.num_joints
        for left, right in self.pairs:
            sides[left], sides[right] = "left", "right"
        return tuple(sides)


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
    # Published with the COCO keypoint evaluation: 0.026 nose ... 0.089 ankles.
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

# Leeds Sports Pose (Johnson and Everingham, BMVC 2010), in its own order.
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
    # COCO's where it has the joint; neck and head top as CrowdPose sets them (Li et al., CVPR 2019).
    sigmas=(0.089, 0.087, 0.107, 0.107, 0.087, 0.089, 0.062, 0.072, 0.079, 0.079, 0.072, 0.062, 0.079, 0.079),
)

SKELETONS = {table.name: table for table in (COCO, LSP)}


def get(name):
    """The skeleton table called `name`.

    Raises:
        InputError: there is no such table.
    """
    if name not in SKELETONS:
        raise InputError(f"no skeleton is called {name!r}: there are {', '.join(sorted(SKELETONS))}")
    return SKELETONS[name]
