"""What the tests of the documentation need: the pages' blocks, how each one is tested, and small data to run them on.

Run as a script, this file stands in for `python` in the blocks: `docs_data.py -m MODULE ARGUMENTS` runs that module
with arguments that make it small (few steps, few images), so that the text of a block runs as it is.
"""

import dataclasses
import os
import re
import shlex
import stat
import sys

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LANGUAGES = ("bash", "python", "text", "yaml")
# The pages whose blocks are tested. Links are tested in the others too.
PAGES = ("README.md", *sorted(f"docs/{name}" for name in os.listdir(f"{REPOSITORY}/docs") if name.endswith(".md")))
OTHER_PAGES = ("BUILD.md", "CHANGELOG.md")

RUN = "run"
_INSTALLS = "installs packages: only its syntax and the names of the extras are tested"
_SERVER = "needs a server that is not installed; tests/export/test_tf_serving.py asks an export over gRPC"
_DETECTOR = "downloads weights; tests/predict/test_detectors.py names a function of a module"
_HOSTS = "needs several hosts; tests/train/test_matrix.py trains two workers on one CPU"

# Page -> (text of its first line, RUN or the reason why only its syntax and flags are tested), a block each, in order.
# Blocks that show output ("text") are left out.
BLOCKS = {
    "README.md": (
        ("git clone", _INSTALLS),
        ("kpose-predict photo.jpg", RUN),
        ("import kpose", RUN),
        ("make demo", "tests/test_demo.py runs the demo on few images"),
        ("tfrecords_tools.convert_csv", RUN),
        ("tfrecords_tools.download_coco", RUN),
        ("kpose.evaluate", RUN),
    ),
    "docs/data.md": (
        ("tfrecords_tools.download_coco", RUN),
        ("tfrecords_tools.write_coco --dry_run", RUN),
        ("for split in train val", RUN),
        ("tfrecords_tools.inspect", RUN),
        ("tfrecords_tools.inspect", RUN),
        ("tfrecords_tools.write_coco --verify", RUN),
        ("kpose.train --config=coco_integral", RUN),
        ("tfrecords_tools.convert --from=yolo", RUN),
        ("tfrecords_tools.convert --from=labelstudio", RUN),
        ("tfrecords_tools.convert --from=labelme", RUN),
        ("tfrecords_tools.convert --from=cvat", RUN),
        ("tfrecords_tools.convert --from=deeplabcut", RUN),
        ("tfrecords_tools.convert_csv", RUN),
        ("pip install '.[lsp]'", _INSTALLS),
        ("tfrecords_tools.convert_lsp", RUN),
        ("tfrecords_tools.figures", RUN),
        ("pip install '.[beam]'", _INSTALLS),
        ("tfrecords_tools.write_coco --images=gs://", "needs a cluster; tests/tfrecords_tools runs Beam's own runner"),
    ),
    "docs/distributed.md": (
        ("pip install '.[gpu]'", _INSTALLS),
        ("kpose.train --config=hardware/one_gpu", "a network of 60 million parameters, for a GPU"),
        ("kpose.train --config=coco_integral:quick", RUN),
        ("export TF_CONFIG", _HOSTS),
        ("export WORKERS", _HOSTS),
        ("apiVersion", _HOSTS),
        ("pip install '.[dask]'", _INSTALLS),
        ("tfrecords_tools.write_coco --images=/shared", "needs a cluster; tests/tfrecords_tools runs one"),
        ("kpose-predict --images=/shared", "needs a cluster; tests/predict runs one"),
    ),
    "docs/model_card.md": (
        ("kpose.evaluate", "names records that only the maintainers have"),
        ("kpose.predict", "names images that only the maintainers have"),
        ("npm pack", "downloads a package"),
        ("tfrecords_tools.write_coco", "names no annotations"),
        ("kpose.train", "names records that only the maintainers have"),
        ("kpose.export.shipped_model", "writes into the package; tests/runs/test_calibrations.py writes elsewhere"),
        ("kpose.export.shipped_model", "the same; tests/runs/test_shipped.py averages a tiny run"),
        ("kpose.train", "begins with a run that only the maintainers have"),
        ("kpose.export.shipped_model", "the same; tests/runs/test_shipped.py writes elsewhere"),
        ("kpose.train", "names records that only the maintainers have"),
        ("kpose.export.shipped_detector", "needs a file of a package of npm; tests/export/test_shipped_detector.py"),
    ),
    "docs/own_data.md": (
        ("tfrecords_tools.convert --from=labelme", RUN),
        ("tfrecords_tools.write_coco", RUN),
        ("kpose.train --config=finetune", RUN),
        ("kpose.export", RUN),
        ("name: hand", "a file: tests/core/test_skeleton_files.py reads it"),
        ("kpose.train --config=finetune", RUN),
        ("tfrecords_tools.convert --from=lsp", RUN),
    ),
    "docs/predict.md": (
        ("kpose-predict photo.jpg", RUN),
        ("kpose-predict --output_dir=found", RUN),
        ("kpose.predict --images=devval", "a measurement: needs the real images of devval"),
        ("my_detectors:yolo", _DETECTOR),
        ("import numpy", _DETECTOR),
        ("import keras", _DETECTOR),
        ("kpose-predict --images", RUN),
        ("kpose-predict --track", RUN),
        ("kpose-predict --json", RUN),
    ),
    # All in one namespace, in the fast test of the snippets.
    "docs/python.md": (
        ("from kpose.core import skeletons", RUN),
        ("from kpose import config", RUN),
        ("from kpose.evaluate.on_records", RUN),
        ("from kpose.export.saved_model", RUN),
        ("from kpose.export import converted", RUN),
        ("import kpose", RUN),
        ("confident", RUN),
        ("from PIL", RUN),
        ("import numpy", RUN),
        ("from kpose.predict.files", RUN),
        ("results = predict", RUN),
        ("from kpose.predict import video_files", RUN),
        ("from kpose.evaluate import two_runs", RUN),
    ),
    "docs/recipes.md": (
        ("kpose.train --config=deeppose", RUN),
        ('"""coco_integral', RUN),
        ("tfrecords_tools.write_coco", RUN),
        ("kpose.train --config=deeppose_stage2", RUN),
        ("kpose.compare", RUN),
    ),
    "docs/results.md": (
        ("kpose.train --config=coco_integral", RUN),
        ("kpose.export.shipped_model", "writes into the package; tests/runs/test_shipped.py writes elsewhere"),
        ("kpose.train --config=deeppose", RUN),
        ("kpose.train --config=lsp_efficientnet_lite0", "needs the records and weights of Leeds Sports Pose"),
        ("kpose.train --config=deeppose_stage2", "needs the run and the records of the block before it"),
        ("kpose.train --config=coco_efficientnet_lite0", "needs downloaded weights and five data sets"),
        ("kpose.train --config=finetune", "names records with computed points, which the page describes"),
        ("kpose.compare", RUN),
    ),
    "docs/serving.md": (
        ("kpose.export", RUN),
        ("tensorflow_model_server", _SERVER),
        ("cd runs", _SERVER),
        ("docker compose --profile gpu", _SERVER),
        ("kpose.export --workdir=runs/coco_integral --output_dir=serving --name", "names a run of hands"),
        ("docker compose --profile batching", _SERVER),
        ("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS=1 tensorflow_model_server", _SERVER),
        ("import tensorflow", RUN),
        ("import base64", _SERVER),
        ("import grpc", _SERVER),
        ("kpose.export --workdir=runs/coco_integral --format=tflite", RUN),
        ("--format=onnx", "needs the extra onnx; tests/export/test_converted.py converts where it is installed"),
        ("import json", RUN),
        ("pip install -r requirements-predict.txt", _INSTALLS),
    ),
    "docs/speed.md": (
        ("pip install", _INSTALLS),
        ("kpose.benchmark input", "takes minutes, even on small data"),
        ("kpose.benchmark input", "takes minutes, even on small data"),
        ("kpose.benchmark gpu", "needs a GPU; tests/benchmark/test_gpu.py"),
    ),
    "docs/training.md": (
        ("kpose.train --config=configs/deeppose.py", RUN),
        ("for split in train val", RUN),
        ("kpose.train --config=coco_integral:quick", RUN),
        ("tensorboard", "a server that runs until it is stopped"),
        ("kpose.evaluate", RUN),
        ("kpose.evaluate", RUN),
        ("kpose.evaluate --workdir=runs/finetune", RUN),
        ("kpose.export", RUN),
        ("kpose.evaluate", RUN),
    ),
}
# Page -> the runs that its blocks expect, by recipe: trained into runs/RECIPE beforehand.
EXPECTED_RUNS = {
    "docs/recipes.md": ("deeppose_rle",),
    "docs/serving.md": ("coco_integral",),
    "docs/training.md": ("finetune",),
}


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, text and the number of the line where it begins."""

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self):
        return f"{self.page}:{self.line}"


def read(page):
    """The text of a page."""
    with open(os.path.join(REPOSITORY, page), encoding="utf-8") as file:
        return file.read()


def blocks(page):
    """The fenced `Block`s of a page, in order."""
    found, opened, lines = [], None, []
    for number, line in enumerate(read(page).splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif opened is None:
            opened, lines = (number, line[3:].strip()), []
        else:
            found.append(Block(page, *opened, "\n".join(lines) + "\n"))
            opened = None
    assert opened is None, f"{page}: the block of line {opened[0]} has no end"
    return found


def tested_blocks(page):
    """The (`Block`, how) of a page: those that are no output, each with what `BLOCKS` says of it."""
    there = [block for block in blocks(page) if block.language != "text"]
    return list(zip(there, [how for _, how in BLOCKS[page]], strict=True))


def prose(page):
    """(number, text) of the lines of a page outside blocks, tables and pictures."""
    lines, inside = [], False
    for number, line in enumerate(read(page).splitlines(), 1):
        if line.startswith("```"):
            inside = not inside
        elif not inside and not line.startswith(("|", "![")):
            lines.append((number, line))
    return lines


def inline_code(page):
    """What stands between single backticks in a page, tables included."""
    text = re.sub(r"^```.*?^```", "", read(page), flags=re.M | re.S)
    return re.findall(r"`([^`\n]+)`", text)


def console_scripts():
    """The console scripts of setup.py: {name: module}."""
    return dict(re.findall(r'"(kpose-[\w-]+) = ([\w.]+):console"', read("setup.py")))


def commands(text):
    """The kpose commands of a text: [(module or name of the console script, [flags without --], whole text)]."""
    text = text.replace("\\\n", " ")
    found = []
    for match in re.finditer(r"(?:python -m ([\w.]+)|(?<![\w/])(kpose-[\w-]+))([^\n|]*)", text):
        module = match[1] or match[2]
        if module.startswith(("kpose", "tfrecords_tools")):
            found.append((module, re.findall(r"\s--([A-Za-z][\w.]*)", match[3]), match[0]))
    return found


# Each of these makes the commands of a module small. Of a flag that is given twice, the last one counts.
_SMALL = {
    "kpose.compare": ["--steps=2", "--batch_size=2", "--input_size=64", "--train_images=4", "--val_images=2"],
    "tfrecords_tools.convert_lsp": ["--last=4"],
    "tfrecords_tools.figures": ["--num_images=4", "--workers=1"],
    "tfrecords_tools.write_coco": ["--workers=1", "--shards=1"],
}
_SMALL_TRAINING = {
    "steps": 2,
    "batch_size": 2,
    "evaluate_batches": 1,
    "data.shuffle_buffer": 16,
    "precision": "float32",
}
_SMALL_DEEPPOSE = {"model.filters": "(4,4,4,4,4)", "model.hidden": "(16,)", "model.input_size": "(64,64)"}


def small(module, arguments):
    """The arguments of a command, with those that make it small; None: it is not to run."""
    if module == "tfrecords_tools.download_coco":
        return None
    if module == "kpose.compare":
        arguments = [*arguments, "--recipes=coco_integral"]
    if module == "kpose.train":
        given = " ".join(arguments)
        fields = _SMALL_TRAINING
        if "stage2" in given:
            fields = fields | {"model.hidden": "(16,)", "model.input_size": "(96,96)", "model.sub_image": "32"}
        elif "deeppose" in given:
            fields = fields | _SMALL_DEEPPOSE
        # A tuple that is given twice would be joined.
        names = tuple(f"--config.{field}=" for field in fields)
        arguments = [argument for argument in arguments if not argument.startswith(names)]
        arguments += [f"--config.{field}={value}" for field, value in fields.items()]
    if module == "tfrecords_tools.write_coco" and "--verify" in arguments:
        return arguments
    return [*arguments, *_SMALL.get(module, ())]


def make_stand_ins(folder):
    """Writes what the blocks call (python, pip, unzip, kpose-...) as small scripts into a folder."""
    os.makedirs(folder, exist_ok=True)
    python = f"exec {shlex.quote(sys.executable)} {shlex.quote(os.path.abspath(__file__))}"
    scripts = {"python": f'{python} "$@"', "pip": "exit 0"}
    scripts["unzip"] = f'exec {shlex.quote(sys.executable)} -m zipfile -e "$2" .'
    for name, module in console_scripts().items():
        scripts[name] = f'{python} -m {module.removesuffix(".__main__")} "$@"'
    for name, line in scripts.items():
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\n{line}\n")
        os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)


def make_data(folder):
    """Writes the files that the pages name, with drawn people, into a folder; not their records."""
    import json
    import shutil
    import zipfile

    from tests import drawn_hands
    from tfrecords_tools.figures import dataset

    drawn = os.path.join(folder, "drawn")
    os.makedirs(os.path.join(folder, "annotations"))
    for split, count in (("train", 20), ("val", 8)):
        labels = dataset.render_dataset(drawn, count, seed=5, split=split, workers=1)
        shutil.copy(labels, os.path.join(folder, "annotations", f"person_keypoints_{split}2017.json"))
        images = os.path.join(drawn, "images", split)
        with zipfile.ZipFile(os.path.join(folder, f"{split}2017.zip"), "w") as archive:
            for name in sorted(os.listdir(images)):
                archive.write(os.path.join(images, name), f"{split}2017/{name}")
    shutil.copy(os.path.join(images, "000000000001.jpg"), os.path.join(folder, "photo.jpg"))
    shutil.copytree(images, os.path.join(folder, "photos"))
    shutil.copytree(images, os.path.join(folder, "val2017"))
    with open(labels, encoding="utf-8") as file:
        _write_csv(json.load(file), os.path.join(folder, "people.csv"))
    _write_lsp(os.path.join(folder, "lsp"), images)
    drawn_hands.make(os.path.join(folder, "hands"), 12)
    _write_video(os.path.join(folder, "film"))
    _write_labels_of_tools(folder)
    shutil.rmtree(drawn)


def make_records(folder):
    """Writes the records that the pages name, from the files of `make_data`."""
    from tests import helpers
    from tfrecords_tools.write_coco import writer

    for name, changes in {
        "labelled": {},
        "full": {"select": "fully_visible"},
        "padded": {"padding": 1.5},
        "lsp": {},
    }.items():
        for split in ("train", "val"):
            annotations = os.path.join(folder, "annotations", f"person_keypoints_{split}2017.json")
            output_dir = os.path.join(folder, "records", name)
            images = os.path.join(folder, f"{split}2017.zip")
            writer.write_records(helpers.options(annotations, images, output_dir, split=split, shards=1, **changes))


def _write_csv(labels, path):
    from kpose.core import skeletons

    names = {image["id"]: image["file_name"] for image in labels["images"]}
    joints = skeletons.COCO.joints
    lines = [",".join(["file_name", *(f"{joint}_{axis}" for joint in joints for axis in "xyv")])]
    for person in labels["annotations"][:4]:
        cells = [
            ",".join(map(str, person["keypoints"][3 * k : 3 * k + 3])) if person["keypoints"][3 * k + 2] else ",,0"
            for k in range(len(joints))
        ]
        lines.append(",".join([names[person["image_id"]], *cells]))
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def _write_lsp(folder, images):
    """Four images in the form of Leeds Sports Pose, with made-up joints."""
    import shutil

    import numpy as np
    import scipy.io

    os.makedirs(os.path.join(folder, "images"))
    for number, name in enumerate(sorted(os.listdir(images))[:4], 1):
        shutil.copy(os.path.join(images, name), os.path.join(folder, "images", f"im{number:04d}.jpg"))
    joints = np.random.default_rng(0).uniform(20, 100, (3, 14, 4))
    joints[2] = 0
    scipy.io.savemat(os.path.join(folder, "joints.mat"), {"joints": joints})


def _write_labels_of_tools(folder):
    """The labels that `convert` reads in docs/data.md, as each tool writes them."""
    from tests.tfrecords_tools import label_files

    truth = label_files.photos()
    label_files.yolo(os.path.join(folder, "yolo"), truth)
    label_files.labelstudio(os.path.join(folder, "labelstudio", "export.json"), truth)
    joints = "".join(f'<Label value="{joint}"/>' for joint in label_files.JOINTS)
    with open(os.path.join(folder, "labelstudio", "config.xml"), "w", encoding="utf-8") as file:
        file.write(f'<View><KeyPointLabels name="kp" toName="image">{joints}</KeyPointLabels></View>')
    label_files.labelme(os.path.join(folder, "labelme"), truth, path="")
    with open(os.path.join(folder, "labelme", "labels.txt"), "w", encoding="utf-8") as file:
        file.write("\n".join(label_files.JOINTS))
    label_files.cvat(os.path.join(folder, "cvat", "annotations.xml"), truth)
    for images in ("labelstudio/images", "labelme", "cvat/images"):
        label_files.paint(os.path.join(folder, images), truth)
    label_files.deeplabcut(os.path.join(folder, "dlc-project"), truth)


def _write_video(stem):
    import fractions

    import numpy as np

    from kpose.predict import videos

    with videos.writing(stem, (64, 64), fractions.Fraction(10)) as add:
        for number in range(1, 5):
            add(number, np.full((64, 64, 3), 60 * number, np.uint8))


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["-m"]:
        changed = small(words[1], words[2:])
        if changed is None:
            sys.exit(0)
        words = ["-m", words[1], *changed]
    os.execv(sys.executable, [sys.executable, *words])
