"""Networks from every source answer alike; bad sources are one clear line."""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kpose.core import devices, geometry, skeleton_files, skeletons
from kpose.core.errors import InputError
from kpose.export import converted, description, tflite
from kpose.export.graph import KeypointServer
from kpose.models import decoding
from kpose.predict import networks
from kpose.runs import shipped_files, workdir
from tests import docs_data, helpers, tiny

PIXELS = np.random.default_rng(0).integers(0, 256, (23, 31, 3), np.uint8).repeat(5, 0).repeat(4, 1)
# Inside, beyond an edge, beyond all edges, and without a pixel of the image.
BOXES = np.float32([[20, 10, 60, 80], [-20.5, 30, 70, 100.25], [-30, -40, 200, 220], [200, 5, 30, 40]])


@pytest.fixture(scope="module")
def lite_file(lite_export):
    return lite_export["path"]


@pytest.fixture(scope="module")
def served(graph_dir):
    """The network of the SavedModel in TensorFlow, opened once: it takes seconds."""
    return networks.open_network(graph_dir)


def same(found, expected, atol=0.05):
    """Asserts equal (keypoints, scores)."""
    np.testing.assert_allclose(found[0][..., :2], expected[0][..., :2], atol=atol)
    np.testing.assert_allclose(found[0][..., 2], expected[0][..., 2], atol=1e-3)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-3)


def test_a_run_its_exports_and_its_lite_file_answer_alike(tiny_run, served, model_dir, lite_file):
    expected = served.predict(PIXELS, BOXES)
    assert expected[0].shape == (4, 17, 3) and expected[0].dtype == expected[1].dtype == np.float32
    for source in (os.path.join(model_dir, "1"), tiny_run, lite_file):
        network = networks.open_network(source)
        assert network.skeleton is skeletons.COCO and os.path.basename(source) in (*network.name.split(os.sep), "run0")
        same(network.predict(PIXELS, BOXES), expected)
        assert network.predict(PIXELS, BOXES[:0])[0].shape == (0, 17, 3)


def test_a_run_is_its_newest_export_or_its_newest_checkpoint(tiny_run, model_dir, lite_file, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    run = str(tmp_path / "run")
    shutil.copytree(tiny_run, run)
    assert "checkpoints" in networks.open_network(run).name and "its checkpoint is used" in caplog.text
    for version in ("2", "10"):
        shutil.copytree(os.path.join(model_dir, "1"), os.path.join(run, "serving", version))
    assert networks.open_network(run).name == os.path.join(run, "serving", "10")
    assert "its newest export is used" in caplog.text
    named = os.path.join(run, "serving", "people", "1")
    shutil.copytree(os.path.join(model_dir, "1"), named)
    for path, age in ((named, 50), (os.path.join(run, "serving", "10"), 100)):
        os.utime(path, (time.time() - age,) * 2)
    assert networks.open_network(run).name == named
    caplog.clear()
    shutil.copy(lite_file, os.path.join(run, "model.tflite"))
    assert networks.open_network(run).name == os.path.join(run, "model.tflite")
    assert "newer checkpoints" not in caplog.text
    os.utime(os.path.join(run, "checkpoints", "checkpoint"), (time.time() + 50,) * 2)
    networks.open_network(run)
    assert "the run has newer checkpoints than this export" in caplog.text


def make_trained(loss, flip=0.5, coordinates="continuous", **fields):
    """An untrained network and its recipe, as of a finished run."""
    config = tiny.make_recipe("", loss__name=loss, augment__flip=flip, data__coordinates=coordinates, **fields)
    # Other initial weights could amplify the difference of a grey level.
    keras.utils.set_random_seed(1)
    with devices.dtype_policy("float32"):
        network = workdir.build_network(config, skeletons.COCO)
    rng = np.random.default_rng(1)
    # Larger than at the start of a training, so that the answer depends on the pixels.
    network.set_weights([w + rng.normal(0, 0.1, w.shape) if w.ndim > 1 else w for w in network.get_weights()])
    return workdir.Trained(config, skeletons.COCO, network, np.zeros((17, 2), np.float32), "step-1", None)


@pytest.mark.parametrize(
    "trained, flip_test",
    [
        # Learnt pixel indices; no confidence: the resolution of the person is the score.
        (lambda: make_trained("l2", coordinates="indices", flip=0.3, data__padding=1.25), False),
        (lambda: make_trained("laplace", coordinates="indices", data__aspect=1.0, data__padding=1.1), True),
    ],
)
def test_a_lite_file_answers_as_the_graph_of_the_recipe(trained, flip_test):
    trained = trained()
    server, facts = converted.network_server(trained, flip_test)
    content = description.attach(tflite.convert(server), "tflite", facts)
    graph = KeypointServer.from_config(trained.network, trained.config, trained.skeleton, flip_test)
    expected = graph.serve_pixels(tf.constant(PIXELS), tf.constant(BOXES))
    network = networks._lite_network(content, "model.tflite")
    found = network.predict(PIXELS, BOXES)
    same(found, [expected["keypoints"].numpy(), expected["scores"].numpy()])
    assert np.ptp(found[1][:3]) > 1e-3 and found[1][3] == 0
    # One by one as together.
    for number in range(len(BOXES)):
        same([a[number : number + 1] for a in found], network.predict(PIXELS, BOXES[[number]]), atol=1e-3)


@pytest.mark.slow
def test_a_cascade_of_stretched_crops_gets_their_aspects(tiny_run, tiny_data, tmp_path):
    from kpose.train import trainer

    recipe = tiny.make_recipe(tiny_data["train"], model__name="cascade", model__base=tiny_run)
    recipe.model.update({"filters": (4, 8), "hidden": (8,), "sub_image": 16})
    trainer.train(recipe, str(tmp_path / "run"))
    path = converted.export(str(tmp_path / "run"), None, "tflite")["path"]
    assert description.read(path)["inputs"] == ["images", "aspects"]
    same(*(networks.open_network(source).predict(PIXELS, BOXES) for source in (path, str(tmp_path / "run"))))


def test_the_code_of_the_docs_reads_a_lite_file_without_kpose(lite_file, tmp_path, monkeypatch):
    (block,) = (b.text for b in docs_data.blocks("docs/serving.md") if "zipfile" in b.text)
    assert "kpose" not in re.sub(r"kpose\.json", "", block)
    monkeypatch.chdir(tmp_path)
    os.makedirs("runs/coco_integral")
    shutil.copy(lite_file, "runs/coco_integral")
    smooth = Image.fromarray(PIXELS[::5, ::4]).resize((500, 560), Image.Resampling.BICUBIC)
    smooth.save("photo.jpg")
    found = {}
    exec(block, found)
    network = networks.open_network("runs/coco_integral/model.tflite")
    expected, _ = network.predict(np.asarray(Image.open("photo.jpg")), np.float32([[120, 40, 210, 480]]))
    # Pillow reads no pixel outside the box. A pixel of the crop is 7 x 15 pixels here.
    np.testing.assert_allclose(found["points"], expected[0, :, :2], atol=1.0)
    assert found["joint"] == "right_ankle"


def test_more_boxes_than_one_batch_are_answered_in_their_order(lite_file):
    rng = np.random.default_rng(2)
    boxes = np.concatenate(
        [rng.uniform(0, 60, (networks.CHUNK + 5, 2)), rng.uniform(20, 60, (networks.CHUNK + 5, 2))], 1
    )
    network = networks.open_network(lite_file)
    found = network.predict(PIXELS, boxes)
    for number in (0, networks.CHUNK - 1, networks.CHUNK, len(boxes) - 1):
        same([a[number : number + 1] for a in found], network.predict(PIXELS, boxes[[number]]), atol=1e-3)


def test_several_threads_get_their_own_answers(lite_file):
    network = networks.open_network(lite_file)
    rng = np.random.default_rng(3)
    boxes = [np.concatenate([rng.uniform(0, 60, (n, 2)), rng.uniform(20, 60, (n, 2))], 1) for n in (1, 3, 2, 5) * 5]
    expected = [network.predict(PIXELS, some) for some in boxes]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(lambda some: network.predict(PIXELS, some), boxes), expected, strict=True):
            same(found, wanted, atol=1e-3)


def test_onnx_files_answer_as_the_run(tiny_run, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("tf2onnx", reason="needs the extra onnx")
    path = converted.export(tiny_run, str(tmp_path), "onnx")["path"]
    same(*(networks.open_network(source).predict(PIXELS, BOXES) for source in (path, tiny_run)))
    with open(path, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(InputError, match="model.onnx: not an ONNX file, or damaged") as error:
        networks.open_network(path)
    helpers.one_line(error)


def test_scores_and_aspects_in_numpy_are_those_of_the_graph():
    regions = geometry.region_of(np.float32([[0, 0, 30, 900], [5, 5, 4000, 3], [1, 2, 55.5, 44.25]]), 1.25)
    np.testing.assert_allclose(networks._aspects(regions), decoding.aspects_of(np.float32(regions)), rtol=1e-5)
    found = networks._resolution_scores(regions, (32, 64))
    np.testing.assert_allclose(found, decoding.resolution_score(np.float32(regions), (32, 64)), rtol=1e-5)


@pytest.mark.parametrize(
    "box, message",
    [
        ([1, np.nan, 5, 5], "boxes item 2 holds a NaN or an infinity"),
        ([1, 2e6, 5, 5], "boxes item 2 holds a number beyond 1000000"),
        ([1, 2, 0, 5], r"boxes item 2 has no width or no height \(x, y, width, height\)"),
    ],
)
def test_bad_boxes_have_the_same_message_for_every_network(box, message, lite_file, served):
    for network in (networks.open_network(lite_file), served):
        with pytest.raises(InputError, match=f"^{message}") as error:
            network.predict(PIXELS, np.float32([BOXES[0], BOXES[1], box]))
        helpers.one_line(error)


def test_an_answer_that_is_not_finite_is_one_line(lite_file):
    network = networks.open_network(lite_file)
    run = network._run

    def damaged(**inputs):
        answer = {name: np.array(value) for name, value in run(**inputs).items()}
        answer["keypoints"][1, 3, 0] = np.nan
        return answer

    network._run = damaged
    with pytest.raises(
        InputError, match="^boxes item 1 gets no finite keypoints from this model.*model.tflite"
    ) as error:
        network.predict(PIXELS, BOXES)
    helpers.one_line(error)


def _damaged(path, folder):
    """Copies of a .tflite file: cut short, changed, without its description, and something else."""
    with open(path, "rb") as file:
        content = file.read()
    changed = bytearray(content)
    changed[len(content) // 2] ^= 255
    bare = content[: content.rindex(b"PK\x03\x04")]
    for name, data in (("short", content[:-300]), ("changed", changed), ("bare", bare), ("text", b"hello")):
        (folder / f"{name}.tflite").write_bytes(data)


@pytest.mark.parametrize(
    "name, message",
    [
        ("none", "no such model: give a file or folder that python -m kpose.export wrote"),
        ("none.tflite", "no such model file"),
        ("none.onnx", "no such model file"),
        ("photo.jpg", "not a .tflite or .onnx file, nor a folder"),
        ("empty", "no exported model"),
        ("several", "contains the models hands, people: name the folder of one"),
        ("short.tflite", "no description of a kpose model inside: .* or it is cut short"),
        ("changed.tflite", "damaged: its checksum"),
        ("bare.tflite", "no description of a kpose model inside"),
        ("text.tflite", "no description of a kpose model inside"),
        ("broken", "SavedModel is damaged"),
        ("broken_lite", "broken_lite/assets.extra/model.tflite: damaged: its checksum"),
        ("norun", "checkpoint"),
    ],
)
def test_bad_sources_are_one_line(name, message, lite_file, model_dir, graph_dir, tiny_run, tmp_path):
    _damaged(lite_file, tmp_path)
    (tmp_path / "photo.jpg").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    for name_of_model in ("hands", "people"):
        (tmp_path / "several" / name_of_model / "1").mkdir(parents=True)
    shutil.copytree(os.path.join(model_dir, "1"), tmp_path / "broken_lite")
    shutil.copy(tmp_path / "changed.tflite", tmp_path / "broken_lite" / "assets.extra" / "model.tflite")
    shutil.copytree(graph_dir, tmp_path / "broken")
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"broken")
    (tmp_path / "norun").mkdir()
    shutil.copy(os.path.join(tiny_run, "config.json"), tmp_path / "norun")
    with pytest.raises(InputError, match=message) as error:
        networks.open_network(str(tmp_path / name))
    assert str(tmp_path / name) in helpers.one_line(error)


def test_a_description_of_an_older_version_says_what_to_do(lite_file, tmp_path):
    facts = description.read(lite_file)
    del facts["offset"]
    with open(lite_file, "rb") as file:
        content = file.read()
    (tmp_path / "old.tflite").write_bytes(description.attach(content[: content.rindex(b"PK\x03\x04")], "tflite", facts))
    with pytest.raises(InputError, match="lacks what predictions need .*offset.*: export the model again"):
        networks.open_network(tmp_path / "old.tflite")


def test_without_onnxruntime_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=r"pip install onnxruntime \(or pip install '.\[onnx\]' in a checkout\)"):
        networks.open_network(str(tmp_path / "model.onnx"))


def test_the_shipped_file_says_what_it_is():
    path = os.path.join(shipped_files.FOLDER, f"{shipped_files.DEFAULT}.tflite")
    facts = description.read(path)
    assert skeleton_files.of_saved(facts["skeleton"]) is skeletons.COCO
    assert facts["outputs"] == ["keypoints", "scores"] and facts["scores"] == description.CONFIDENCE
    assert facts["offset"] == [0.0, 0.0] and networks.open_network().name == shipped_files.DEFAULT
    # Labels of the first model's training were pixel indices, and half of the persons were flipped.
    first = description.read(os.path.join(shipped_files.FOLDER, "movenet_lightning_v1.tflite"))
    assert first["offset"] == [0.0, 0.5]


BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
"""
BLOCKED = ("tensorflow", "keras", "keras_cv", "ml_collections", "matplotlib", "pycocotools", "scipy", "numba", "jinja2")


def test_command_and_python_need_no_tensorflow(photos, model_dir, graph_dir, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"BLOCKED = {BLOCKED}\n{BLOCKER}\n"
        "import kpose\n"
        f"people = kpose.load().predict({str(photos / 'a.jpg')!r}, [[10, 5, 40, 80]])\n"
        "assert people.keypoints.shape == (1, 17, 3), people.keypoints.shape\n"
        f"kpose.load({model_dir!r}).predict({str(photos / 'a.jpg')!r}, [[10, 5, 40, 80]])\n"
        "try:\n"
        f"    kpose.load({graph_dir!r})\n"
        "except ValueError as error:\n"
        "    assert 'this needs TensorFlow, which is not installed: pip install' in str(error)\n"
        "else:\n"
        "    raise AssertionError\n"
        f"sys.argv = ['kpose-predict', '--output_dir={tmp_path}/found', {str(photos)!r}]\n"
        "from kpose.predict.__main__ import console\n"
        "console()\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "INFO" not in done.stderr
    assert "keypoints.json" in os.listdir(tmp_path / "found") and len(os.listdir(tmp_path / "found")) == 3
