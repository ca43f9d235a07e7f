"""Reads skeleton tables from files and from COCO categories. Only the names of the joints are needed."""

import dataclasses
import os
import re

from kpose.core import files
from kpose.core.errors import InputError
from kpose.core.skeletons import DEFAULT_SIGMA, SKELETONS, Skeleton, get


def find(source):
    """The skeleton table of a name or a file.

    Args:
        source: one of `SKELETONS`, or a .json or .yaml file (see `from_fields`).

    Raises:
        InputError: there is no such name or file, or the file is not a skeleton.
    """
    return get(source) if source in SKELETONS or not is_file(source) else read(source)


def is_file(source):
    """Whether a skeleton's source is the name of a file."""
    return str(source).lower().endswith((".json", ".yaml", ".yml"))


def read(path):
    """The skeleton table of a .json or .yaml file; its name is that in the file, or the file's.

    Raises:
        InputError: the file is missing or is not a skeleton.
    """
    if path.lower().endswith(".json"):
        fields = files.read_json(path, "skeleton")
    else:
        import yaml

        try:
            fields = yaml.safe_load(files.read_bytes(path))
        except OSError as error:
            raise InputError(f"{path}: the skeleton cannot be read ({error.strerror or error})") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not YAML: {' '.join(str(error).split())[:200]}") from None
    stem = os.path.splitext(os.path.basename(path))[0]
    try:
        return from_fields(fields, stem)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


# Field of a file -> its other name, that of a COCO category.
_FIELDS = {"joints": "keypoints", "bones": "skeleton", "name": None, "pairs": "flip_idx", "limbs": None}
_FIELDS |= {"torso": None, "upper": None, "sigmas": None}


def from_fields(fields, name="skeleton"):
    """The skeleton table of a dict, as a JSON or YAML file holds it.

    Only `joints` is needed. Joints are named, or given by their index from 0:

        joints    K names (or `keypoints`, as in a COCO category)
        pairs     [[left, right], ...], or `flip_idx`: K indices, as YOLO has them. Without them, the
                  pairs follow from the names (`pairs_of_names`)
        bones     [[joint, joint], ...], or `skeleton` as in a COCO category: indices from 1
        sigmas    K numbers, or {joint: number}
        limbs     {group: [[joint, joint], ...]}
        torso     [joint, joint]
        upper     [joint, ...]

    Args:
        fields: the dict.
        name: its name, if `fields` has none.

    Raises:
        InputError: a field is unknown or wrong.
    """
    if not isinstance(fields, dict):
        raise InputError("not a skeleton: it needs the field 'joints', a list of names")
    unknown = set(map(str, fields)) - set(_FIELDS) - set(_FIELDS.values())
    if unknown:
        raise InputError(f"a skeleton has no field {sorted(unknown)[0]!r}: its fields are {', '.join(_FIELDS)}")
    joints = fields.get("joints", fields.get("keypoints"))
    if not isinstance(joints, list | tuple) or not joints or not all(isinstance(j, str) and j for j in joints):
        raise InputError("not a skeleton: 'joints' must be a list of names")
    index = {joint: number for number, joint in enumerate(joints)}

    def joint(value, what):
        if isinstance(value, str) and value in index:
            return index[value]
        if type(value) is int and 0 <= value < len(joints):
            return value
        raise InputError(f"{what}: {value!r} is not a joint")

    def row(values, what):
        if not isinstance(values, list | tuple):
            raise InputError(f"{what}: {values!r} is not a list of joints")
        return tuple(joint(value, what) for value in values)

    def rows(values, what):
        if not isinstance(values, list | tuple):
            raise InputError(f"{what}: {values!r} is not a list of pairs of joints")
        return tuple(row(value, what) for value in values)

    limbs = fields.get("limbs") or {}
    if not isinstance(limbs, dict):
        raise InputError(f"limbs: {limbs!r} is not an object of lists of pairs of joints")
    if fields.get("pairs") is not None:
        pairs = rows(fields["pairs"], "pairs")
    elif fields.get("flip_idx") is not None:
        pairs = _pairs_of_flip(row(fields["flip_idx"], "flip_idx"), joints)
    else:
        pairs = pairs_of_names(joints)
    bones = rows(fields.get("bones") or [], "bones") or _bones_of_category(fields.get("skeleton"), len(joints))
    table = Skeleton(
        name=str(fields.get("name") or name),
        joints=tuple(joints),
        pairs=pairs,
        limbs={str(group): rows(some, f"limbs, {group}") for group, some in limbs.items()},
        torso=row(fields.get("torso") or [], "torso"),
        upper=row(fields.get("upper") or [], "upper"),
        bones=bones,
        sigmas=_sigmas(fields.get("sigmas"), joints),
    )
    # The names of `SKELETONS` are for their tables alone.
    taken = table.name in SKELETONS and table != SKELETONS[table.name]
    return dataclasses.replace(table, name=f"{table.name}_{table.num_joints}") if taken else table


def _sigmas(given, joints):
    if not given:
        return ()
    if isinstance(given, dict):
        unknown = [name for name in given if name not in joints]
        if unknown:
            raise InputError(f"sigmas: {unknown[0]!r} is not a joint")
        given = [given.get(joint, DEFAULT_SIGMA) for joint in joints]
    numbers = isinstance(given, list | tuple) and all(type(value) in (int, float) for value in given)
    if not numbers:
        raise InputError("sigmas: give a positive number for each joint")
    return tuple(float(value) for value in given)


def _pairs_of_flip(order, joints):
    """The pairs of joints that change places in a mirroring: `order` is [K] indices, as `flip_order`.

    The names say which joint of a pair is the left one; without that it is the first.
    """
    count, named = len(joints), pairs_of_names(joints)
    if len(order) != count or any(order[order[k]] != k for k in range(count)):
        raise InputError(f"flip_idx: {list(order)} does not exchange pairs of {count} joints")
    pairs = [(k, other) for k, other in enumerate(order) if k < other]
    return tuple(pair[::-1] if pair[::-1] in named else pair for pair in pairs)


def _bones_of_category(lines, count):
    """Bones of a COCO category, whose indices start at 1; at 0 if one of them is 0.

    Other tools also leave joints out or write what is no pair. Such lines are not drawn.
    """
    good = [
        line
        for line in (lines if isinstance(lines, list | tuple) else ())
        if isinstance(line, list | tuple) and len(line) == 2 and all(type(j) is int for j in line)
    ]
    first = 0 if any(0 in line for line in good) else 1
    moved = [(a - first, b - first) for a, b in good]
    return tuple(dict.fromkeys((a, b) for a, b in moved if a != b and 0 <= a < count and 0 <= b < count))


def from_category(category):
    """The skeleton table of a COCO category.

    Args:
        category: dict with `keypoints`, and perhaps `name`, `skeleton` and the further fields of
            `from_fields`.

    Returns:
        One of `SKELETONS` if it has the same joints in any order, otherwise a new table.

    Raises:
        InputError: the joints are no list of different names, or a further field is wrong.
    """
    joints = category["keypoints"]
    if not isinstance(joints, list | tuple) or not all(isinstance(j, str) and j for j in joints):
        raise InputError(f"category {category.get('name')!r}: its keypoints are not a list of names")
    known = of_joints(joints)
    if known:
        return known
    fields = {key: value for key, value in category.items() if key in (*_FIELDS, "keypoints", "skeleton", "flip_idx")}
    try:
        return from_fields(fields, "skeleton")
    except InputError as error:
        raise InputError(f"category {category.get('name')!r}: {error}") from None


def of_joints(joints):
    """The table of `SKELETONS` with these joint names, in any order and spelling; None: there is none."""
    plain = sorted(map(plain_name, joints))
    return next((table for table in SKELETONS.values() if sorted(map(plain_name, table.joints)) == plain), None)


def plain_name(name):
    """The name of a joint without case and separators."""
    return re.sub(r"[\W_]+", "", str(name)).lower()


def comparable(first, second):
    """Two lists of joint names in a form in which equal joints are equal: `plain_name`, if it is unique."""
    plain = [[plain_name(joint) for joint in joints] for joints in (first, second)]
    if all(len(set(names)) == len(names) and all(names) for names in plain):
        return plain
    return [list(map(str, first)), list(map(str, second))]


# What makes a name that of a left joint, and the same of a right one.
_SIDES = (
    (re.compile("left", re.IGNORECASE), "right"),
    (re.compile(r"(?<![^\W\d_])[lL](?![^\W\d_])"), "r"),
    # Camel case: LShoulder, shoulderL.
    (re.compile(r"(?<![A-Z])L(?=[A-Z][a-z])|(?<=[a-z])L(?![A-Za-z])"), "R"),
    (re.compile("左"), "右"),
)


def pairs_of_names(joints):
    """(left, right) indices of the joints whose names differ in their side only.

    Recognised are left and right anywhere in a name, l and r between separators (`x_l`, `L x`), L
    and R in camel case (`LShoulder`), and 左 and 右; a name is left only if its partner exists.

    Args:
        joints: K names.
    """
    by_name = {}
    for index, joint in enumerate(joints):
        by_name.setdefault(joint.casefold(), index)
    pairs, used = [], set()
    for index, joint in enumerate(joints):
        for pattern, right in _SIDES:
            partners = {
                by_name.get((joint[: m.start()] + right + joint[m.end() :]).casefold()) for m in pattern.finditer(joint)
            }
            partners -= {None, index}
            if len(partners) == 1 and not used & {index, *partners}:
                pairs.append((index, *partners))
                used |= set(pairs[-1])
                break
    return tuple(pairs)


def to_fields(skeleton):
    """The dict of JSON values from which `from_fields` gives the same table."""
    return {name: _plain(getattr(skeleton, name)) for name in (f.name for f in dataclasses.fields(Skeleton))}


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value


def of_saved(saved):
    """The table that a file of kpose holds: the fields of `to_fields`, or in older files a name.

    Raises:
        InputError: an unknown name, or not a table.
    """
    table = get(saved) if isinstance(saved, str) else from_fields(saved)
    known = SKELETONS.get(table.name)
    # One object a table, so that tables can be compared by `is` as well.
    return known if known == table else table


def describe(skeleton):
    """Lines of text about a skeleton that comes with the data: what follows from it, what it lacks."""
    pairs = ", ".join(f"{skeleton.joints[a]} / {skeleton.joints[b]}" for a, b in skeleton.pairs)
    lacks = {
        "no limbs: no PCP": skeleton.limbs,
        "no torso: PDJ is relative to the box": skeleton.torso,
        f"no sigmas: OKS with {DEFAULT_SIGMA} for every joint": skeleton.sigmas,
        "no upper body: no half-body augmentation": skeleton.upper,
    }
    missing = "; ".join(what for what, value in lacks.items() if not value)
    lines = [
        f"skeleton {skeleton.name!r}: {skeleton.num_joints} joints, {len(skeleton.bones)} bones, left / right: "
        + (pairs or "no pairs")
    ]
    return lines + ([f"skeleton {skeleton.name!r}: {missing}"] if missing else [])
