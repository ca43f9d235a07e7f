"""Initial weights from a trained network with other joints, another input size or another head.

Two networks of one kind (`config.model.name`, and for a backbone `config.model.backbone`) have the
same layer names. An array is taken if a layer of the same name has one of the same name and shape.
The last layers (`kpose.models.layers.JOINT_LAYERS`) have numbers for each joint: those of joints
with the same name in both skeletons are taken. All other arrays and joints keep the values that the
new network has: they begin anew.
"""

import dataclasses

import keras
import numpy as np
from absl import logging

from kpose import config as config_lib
from kpose.core import skeleton_files
from kpose.core.errors import InputError
from kpose.models.layers import JOINT_LAYERS

# Largest number of names in a log line.
LISTED = 40
# Fields of the section `model` that do not change the arrays of a network.
_NO_SHAPE = ("weights", "preprocessing", "dropout", "batch_norm_momentum", "frozen_blocks", "freeze_epochs", "fc_init")


@dataclasses.dataclass(frozen=True)
class Carried:
    """What a network has taken from another one.

    Attributes:
        arrays: names of the arrays that are taken completely, "layer/array".
        by_joint: names of the arrays of which the parts of `joints` are taken.
        anew: names of the arrays of which nothing is taken.
        unused: names of the other network's arrays of which nothing is taken.
        joints: joints of the new network whose parts are taken.
        new_joints: its other joints; their parts of `by_joint` begin anew.
    """

    arrays: tuple
    by_joint: tuple
    anew: tuple
    unused: tuple
    joints: tuple
    new_joints: tuple

    def lines(self):
        """Lines of text: what is taken, and what begins anew, by name."""
        total = len(self.arrays) + len(self.by_joint) + len(self.anew)
        if len(self.arrays) == total:
            return [f"all {total} arrays are taken"]
        lines = [f"{len(self.arrays)} of {total} arrays are taken" + (" completely" if self.by_joint else "")]
        layers = _listed(_layers(self.by_joint))
        if self.by_joint and self.new_joints:
            lines.append(
                f"taken by joint: {_listed(self.joints)} ({len(self.joints)} of "
                f"{len(self.joints) + len(self.new_joints)} joints), in the layers {layers}"
            )
            lines.append(f"begin anew: the joints {_listed(self.new_joints)}, in the layers {layers}")
        elif self.by_joint:
            lines.append(f"taken by joint: all {len(self.joints)} joints, in the layers {layers}")
        if self.anew:
            lines.append(f"begin anew: the layers {_listed(_layers(self.anew))}")
        if self.unused:
            lines.append(f"not used: the layers {_listed(_layers(self.unused))} of the initial weights")
        return lines


def carry_over(network, trained, skeleton, config, source):
    """Sets the weights of a new network to those of a trained one, where they fit, and logs which.

    Args:
        network: the new `keras.Model`.
        trained: the other network: a `kpose.runs.workdir.Trained`.
        skeleton: the `Skeleton` of `network`.
        config: the `model` section of the recipe of `network`.
        source: `config.model.weights`, for messages.

    Returns:
        `Carried`.

    Raises:
        InputError: the networks are of different kinds, or their first layers differ.
    """
    check_kind(config, trained.config.model, source)
    ours, theirs = named_arrays(network), named_arrays(trained.network)
    first = next(iter(ours))
    if first not in theirs or theirs[first].shape != ours[first].shape:
        raise InputError(
            f"config.model.weights is {source!r}, a {kind(config)} too, but its first layer, "
            f"{first.rpartition('/')[0]}, differs from that of this recipe"
            f"{_different_fields(config, trained.config.model)}"
        )
    values, by_joint = _fitting(ours, theirs, skeleton, trained.skeleton)
    for name, value in values.items():
        ours[name].assign(value)
    places = dict(shared_joints(skeleton, trained.skeleton))
    carried = Carried(
        arrays=tuple(name for name in values if name not in by_joint),
        by_joint=tuple(by_joint),
        anew=tuple(name for name in ours if name not in values),
        unused=tuple(name for name in theirs if name not in values),
        joints=tuple(skeleton.joints[k] for k in places),
        new_joints=tuple(joint for k, joint in enumerate(skeleton.joints) if k not in places),
    )
    for line in carried.lines():
        logging.info("initial weights of %s: %s", source, line)
    return carried


def _fitting(ours, theirs, skeleton, other):
    """The values of arrays that fit.

    Args:
        ours, theirs: as from `named_arrays`, of the new and of the trained network.
        skeleton, other: their `Skeleton`s.

    Returns:
        dict name -> value; and the names of those that are put together by joint.
    """
    places = shared_joints(skeleton, other)
    values, by_joint = {}, []
    for name, variable in ours.items():
        if name not in theirs:
            continue
        new, old = variable.numpy(), theirs[name].numpy()
        if new.shape == old.shape and (skeleton.joints == other.joints or not _has_joints(name, new, skeleton)):
            values[name] = old
        elif _has_joints(name, new, skeleton) and _has_joints(name, old, other):
            joined = _with_joints(new, old, skeleton, other, places)
            if joined is not None:
                values[name] = joined
                by_joint.append(name)
    return values, by_joint


def kind(config):
    """The kind of network of a `model` section: only networks of one kind have the same layers."""
    return config.backbone if config.name == "backbone" else config.name


def check_kind(ours, theirs, source):
    """Raises `InputError` if two `model` sections are of different kinds.

    Args:
        ours: that of the recipe.
        theirs: that of the trained network.
        source: `config.model.weights`, for the message.
    """
    if kind(ours) != kind(theirs) or ours.name == "cascade":
        field = "model.backbone" if (ours.name, theirs.name) == ("backbone", "backbone") else "model.name"
        raise InputError(
            f"config.model.weights is {source!r}, whose network is {kind(theirs)}, but that of this recipe is "
            f"{kind(ours)}: another network, of which no weights fit; use weights of {kind(ours)}, or a recipe with "
            f"{field}={kind(theirs) if field == 'model.backbone' else theirs.name}"
        )


def named_arrays(network):
    """dict "layer/array" -> variable of a network, from the input on; inner models have a prefix."""
    found = {}
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            found |= {f"{layer.name}/{name}": variable for name, variable in named_arrays(layer).items()}
        else:
            found |= {f"{layer.name}/{variable.name}": variable for variable in layer.weights}
    return found


def shared_joints(skeleton, other):
    """[(index in `skeleton`, index in `other`)] of the joints with the same name in both.

    Case and separators do not matter: `left_hip` is `LeftHip`.
    """
    ours, theirs = skeleton_files.comparable(skeleton.joints, other.joints)
    indices = {joint: k for k, joint in enumerate(theirs)}
    return [(k, indices[joint]) for k, joint in enumerate(ours) if joint in indices]


def _has_joints(name, array, skeleton):
    """Whether the last axis of an array holds numbers for each joint, joint after joint."""
    return name.split("/")[0] in JOINT_LAYERS and array.ndim > 0 and array.shape[-1] % skeleton.num_joints == 0


def _with_joints(new, old, skeleton, other, places):
    """The array `new` with the parts of `old` at the joints that both have.

    Args:
        new: [..., n * K] n numbers for each joint.
        old: [..., m * K'] m numbers for each joint of `other`. If n and m differ, the first ones of
            each joint are taken (deeppose: x, y, and with visibility a third one).
        skeleton, other: the `Skeleton` of `new` and of `old`.
        places: as from `shared_joints`.

    Returns:
        [..., n * K]; None if no joint or no other axis fits.
    """
    ours = new.reshape(*new.shape[:-1], skeleton.num_joints, -1).copy()
    theirs = old.reshape(*old.shape[:-1], other.num_joints, -1)
    if not places or ours.shape[:-2] != theirs.shape[:-2]:
        return None
    numbers = min(ours.shape[-1], theirs.shape[-1])
    into, out_of = (np.array(indices, int) for indices in zip(*places, strict=True))
    ours[..., into, :numbers] = theirs[..., out_of, :numbers]
    return ours.reshape(new.shape)


def _different_fields(ours, theirs):
    """Text: the fields of two `model` sections that differ and can change arrays."""
    new, old = config_lib.flatten(ours), config_lib.flatten(theirs)
    changed = [name for name in sorted(new) if name not in (*_NO_SHAPE, "input_size") and new[name] != old.get(name)]
    return ": set " + ", ".join(f"config.model.{name}={old[name]}" for name in changed) if changed else ""


def _layers(names):
    return list(dict.fromkeys(name.rpartition("/")[0] for name in names))


def _listed(names):
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
