"""Writes labels as other tools write them, each from its own documentation; the converters' tests read them back.

`PHOTOS` is what is labelled. Joints are [K, 3]: x, y from the corner of the image, visibility flag.
"""

import csv
import dataclasses
import json
import os
import xml.sax.saxutils

import numpy as np
from PIL import Image

from tfrecords_tools.convert import formats
from tfrecords_tools.convert.options import ConvertOptions

JOINTS = ("nose", "left_ear", "right_ear", "tail base", "尾")
FLIP = [0, 2, 1, 3, 4]
BONES = (("nose", "left_ear"), ("nose", "right_ear"), ("nose", "tail base"))
SIZE = (160, 120)


@dataclasses.dataclass(frozen=True)
class Animal:
    """Joints [K, 3] and box [x, y, width, height] of an animal."""

    joints: np.ndarray
    box: tuple
    category: str = "mouse"


def animals(count, seed):
    """Animals in images of `SIZE`; coordinates have two decimals. Every third joint may be unlabelled or occluded."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        left, top = np.round(rng.uniform((0, 0), (60, 40)), 1)
        xy = np.round(rng.uniform((left + 5, top + 5), (left + 75, top + 55), (len(JOINTS), 2)), 2)
        flags = rng.choice([2, 2, 1, 0], len(JOINTS))
        flags[:2] = 2
        xy[flags == 0] = 0
        made.append(Animal(np.column_stack([xy, flags]), (left, top, 80.0, 60.0)))
    return made


def photos(counts=(1, 2, 1), seed=0):
    """Name of an image -> its animals."""
    return {f"img{number:03d}.png": animals(count, seed + number) for number, count in enumerate(counts, 1)}


def paint(folder, names, size=SIZE):
    """Writes grey images; returns the folder."""
    os.makedirs(folder, exist_ok=True)
    for name in names:
        Image.new("RGB", size, "grey").save(os.path.join(folder, name))
    return str(folder)


def _write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return str(path)


def yolo(folder, truth, split="train", dimensions=3, yaml="", names="names:\n  0: mouse\n", named=True):
    """A data set of Ultralytics: data.yaml, images/SPLIT, labels/SPLIT. Returns the path of data.yaml."""
    folder = str(folder)
    paint(os.path.join(folder, "images", split), truth)
    for name, persons in truth.items():
        lines = []
        for animal in persons:
            x, y, w, h = animal.box
            cells = [
                "0",
                *(f"{v:.8f}" for v in ((x + w / 2) / SIZE[0], (y + h / 2) / SIZE[1], w / SIZE[0], h / SIZE[1])),
            ]
            for px, py, flag in animal.joints:
                cells += [f"{px / SIZE[0]:.8f}", f"{py / SIZE[1]:.8f}", *([f"{flag:g}"] if dimensions == 3 else [])]
            lines.append(" ".join(cells))
        _write(os.path.join(folder, "labels", split, name.replace(".png", ".txt")), "\n".join(lines) + "\n")
    shape = f"kpt_shape: [{len(JOINTS)}, {dimensions}]\nflip_idx: {FLIP}\n"
    joints = "kpt_names:\n  0:\n" + "".join(f"    - {joint}\n" for joint in JOINTS) if named else ""
    splits = "train: images/train\nval: images/val\ntest:\n"
    return _write(os.path.join(folder, "data.yaml"), yaml or f"path: .\n{splits}{shape}{joints}{names}")


def region(number, kind, value):
    return {
        "id": number,
        "type": kind,
        "value": value,
        "origin": "manual",
        "to_name": "image",
        "from_name": {"keypointlabels": "kp", "rectanglelabels": "bbox"}[kind],
        "image_rotation": 0,
        "original_width": SIZE[0],
        "original_height": SIZE[1],
    }


def _percent(x, y, **more):
    return {"x": 100 * x / SIZE[0], "y": 100 * y / SIZE[1], **more}


def results(persons, link="parentID", boxes=True):
    """The `result` of an annotation of Label Studio; `link`: "parentID", "relation" or ""."""
    found = []
    for number, animal in enumerate(persons):
        x, y, w, h = animal.box
        corner = _percent(x, y, width=100 * w / SIZE[0], height=100 * h / SIZE[1], rotation=0)
        if boxes:
            found.append(region(f"box{number}", "rectanglelabels", corner | {"rectanglelabels": [animal.category]}))
        for k, (px, py, flag) in enumerate(animal.joints):
            if not flag:
                continue
            value = _percent(px, py, width=0.27, keypointlabels=[JOINTS[k]])
            point = region(f"p{number}_{k}", "keypointlabels", value)
            if link == "parentID":
                point["parentID"] = f"box{number}"
            found.append(point)
            if link == "relation":
                ends = {"from_id": f"p{number}_{k}", "to_id": f"box{number}"}
                found.append({"type": "relation", "direction": "right", **ends})
    return found


def task(number, name, result, **more):
    """A task of Label Studio with one annotation; the image was uploaded."""
    annotation = {
        "id": 100 + number,
        "completed_by": 1,
        "result": result,
        "was_cancelled": False,
        "ground_truth": False,
    }
    upload = f"1a2b3c{number % 100:02d}-{name}"
    data = {"image": f"/data/upload/1/{upload}"}
    return {"id": number, "annotations": [annotation], "file_upload": upload, "predictions": [], "data": data, **more}


def labelstudio(path, truth, link="parentID", boxes=True):
    """An export as JSON."""
    tasks = [task(n, name, results(persons, link, boxes)) for n, (name, persons) in enumerate(truth.items(), 1)]
    return _write(str(path), json.dumps(tasks))


def labelstudio_minimal(path, truth):
    """An export as JSON-MIN: the values alone, under the names of their controls."""
    tasks = []
    for number, (name, persons) in enumerate(truth.items(), 1):
        entry = {
            "image": f"/data/upload/1/1a2b3c{number:02d}-{name}",
            "id": number,
            "annotator": 1,
            "annotation_id": number,
        }
        for region in results(persons, ""):
            sizes = {key: region[key] for key in ("original_width", "original_height")}
            entry.setdefault(region["from_name"], []).append(region["value"] | sizes)
        tasks.append(entry)
    return _write(str(path), json.dumps(tasks))


def labelme(folder, truth, groups=True, boxes=True, path="../photos/"):
    """A folder with a JSON file an image."""
    for name, persons in truth.items():
        shapes = []
        for number, animal in enumerate(persons):
            group = number if groups else None
            x, y, w, h = animal.box
            rows = [(animal.category, "rectangle", [[x + w, y], [x, y + h]], {})] if boxes else []
            for joint, (px, py, flag) in zip(JOINTS, animal.joints, strict=True):
                rows += [(joint, "point", [[px, py]], {"occluded": bool(flag == 1)})] if flag else []
            for label, kind, points, flags in rows:
                shape = {"label": label, "points": points, "group_id": group, "description": "", "shape_type": kind}
                shapes.append(shape | {"flags": flags, "mask": None})
        size = {"imageHeight": SIZE[1], "imageWidth": SIZE[0]}
        data = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": path + name, "imageData": None, **size}
        _write(os.path.join(str(folder), name.replace(".png", ".json")), json.dumps(data))
    return str(folder)


def cvat(path, truth, skeletons=True, boxes=True):
    """An XML file of "CVAT for images 1.1", with skeletons or with grouped points."""
    circles = [
        f'<circle data-type="element node" data-node-id="{k}" data-label-name="{j}"/>' for k, j in enumerate(JOINTS, 1)
    ]
    lines = [
        f'<line data-type="edge" data-node-from="{JOINTS.index(a) + 1}" data-node-to="{JOINTS.index(b) + 1}"/>'
        for a, b in BONES
    ]
    svg = xml.sax.saxutils.escape("".join(lines + circles))
    label = "<label><name>{}</name><color>#ff0000</color><type>{}</type><attributes></attributes>{}</label>"
    parent = "<parent>mouse</parent>" if skeletons else ""
    meta = [
        label.format("mouse", "skeleton", f"<svg>{svg}</svg>") if skeletons else label.format("mouse", "rectangle", "")
    ]
    meta += [label.format(joint, "points", parent) for joint in JOINTS]
    text = ['<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task><labels>']
    text += [*meta, "</labels></task></meta>\n"]
    for number, (name, persons) in enumerate(truth.items()):
        text.append(f'<image id="{number}" name="{name}" width="{SIZE[0]}" height="{SIZE[1]}">\n')
        for group, animal in enumerate(persons, 1):
            x, y, w, h = animal.box
            ends = f'xtl="{x:.2f}" ytl="{y:.2f}" xbr="{x + w:.2f}" ybr="{y + h:.2f}"'
            box = f'<box label="mouse" source="manual" occluded="0" {ends} z_order="0" group_id="{group}"></box>\n'
            points = [
                f'<points label="{joint}" source="manual" outside="{int(flag == 0)}" occluded="{int(flag == 1)}" '
                f'points="{px:.2f},{py:.2f}"' + ("" if skeletons else f' group_id="{group}"') + "></points>\n"
                for joint, (px, py, flag) in zip(JOINTS, animal.joints, strict=True)
                if skeletons or flag
            ]
            if skeletons:
                head = f'<skeleton label="mouse" source="manual" z_order="0" group_id="{group}">\n'
                points = [head, *points, "</skeleton>\n"]
            text += [*points, *([box] if boxes else [])]
        text.append("</image>\n")
    return _write(str(path), "".join([*text, "</annotations>\n"]))


def deeplabcut(project, truth, individuals=("mouse1", "mouse2"), split_path=False, video="film"):
    """A project with labels of one video; x and y are pixel indices. Returns the .csv file.

    Args:
        individuals: names of the animals; (): a project of one animal, with three header rows.
        split_path: as newer versions write it: three cells for the path of an image.
    """
    folder = os.path.join(str(project), "labeled-data", video)
    paint(folder, truth)
    rows = {"scorer": [], "individuals": [], "bodyparts": [], "coords": []}
    for individual in individuals or ("",):
        for joint in JOINTS:
            for axis in "xy":
                for row, value in zip(rows.values(), ("Ed", individual, joint, axis), strict=True):
                    row.append(value)
    if not individuals:
        del rows["individuals"]
    lead = 3 if split_path else 1
    lines = [[name, *[""] * (lead - 1), *values] for name, values in rows.items()]
    for name, persons in truth.items():
        cells = []
        for number in range(len(individuals) or 1):
            joints = persons[number].joints if number < len(persons) else np.zeros((len(JOINTS), 3))
            for x, y, flag in joints:
                cells += [f"{x - 0.5:.2f}", f"{y - 0.5:.2f}"] if flag else ["", ""]
        path = ["labeled-data", video, name]
        lines.append([*(path if split_path else ["/".join(path)]), *cells])
    path = os.path.join(folder, "CollectedData_Ed.csv")
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return path


def convert(kind, source, tmp_path, **options):
    """Converts labels; returns (the COCO file's data, lines of text)."""
    output = tmp_path / "made.json"
    lines = formats.convert(ConvertOptions(kind, str(source), str(output), **options))
    return json.loads(output.read_text()), lines


def check(data, truth, boxes=True, occlusion=True, joints=JOINTS):
    """The file has the animals of `truth`, in its order: joints as pixel indices, boxes in pixels."""
    (category,) = data["categories"]
    assert category["keypoints"] == list(joints)
    names = {image["id"]: os.path.basename(image["file_name"]) for image in data["images"]}
    assert all((image["width"], image["height"]) == SIZE for image in data["images"])
    expected = [(name, animal) for name, animals in truth.items() for animal in animals]
    assert [names[row["image_id"]] for row in data["annotations"]] == [name for name, _ in expected]
    for row, (_, animal) in zip(data["annotations"], expected, strict=True):
        found = np.reshape(row["keypoints"], (-1, 3))
        wanted = np.array(animal.joints)
        if not occlusion:
            wanted[:, 2] = np.where(wanted[:, 2] > 0, 2, 0)
        wanted[wanted[:, 2] > 0, :2] -= 0.5
        np.testing.assert_allclose(found, wanted, atol=2e-3)
        if boxes:
            np.testing.assert_allclose(row["bbox"], animal.box, atol=2e-3)
        else:
            x, y, w, h = row["bbox"]
            seen = np.array(animal.joints)[animal.joints[:, 2] > 0, :2]
            assert (seen >= (x - 0.1, y - 0.1)).all() and (seen <= (x + w + 0.1, y + h + 0.1)).all()


def photo_folder(tmp_path, truth):
    """Writes the images of `truth` into the folder photos; returns it."""
    return paint(tmp_path / "photos", truth)
