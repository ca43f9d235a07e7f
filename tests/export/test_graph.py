"""Evaluation, exported model and prediction of a run: their keypoints agree."""

import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kpose import config as config_lib
from kpose.core import geometry, litert, locks, skeletons
from kpose.core.errors import InputError
from kpose.data import crops, resampling
from kpose.data.image_files import open_image
from kpose.evaluate import on_records
from kpose.export import converted, model_folder, requests, saved_model
from kpose.models import decoding
from kpose.predict import files, networks
from kpose.predict.model import Model
from kpose.runs import workdir
from tests import helpers, tiny


@pytest.fixture(scope="module")
def evaluation(tiny_evaluation):
    return tiny_evaluation


@pytest.fixture(scope="module")
def signatures(exported):
    return exported.signatures


def load(path):
    with open(path) as file:
        return json.load(file)


def images_of(tiny_data):
    return os.path.join(tiny_data["folder"], "images", "val")


def test_metrics_json_has_all_its_entries(evaluation, tiny_data):
    folder, table = evaluation
    assert load(os.path.join(folder, "metrics.json")) == table
    groups = {"upper_arms", "lower_arms", "upper_legs", "lower_legs", "average"}
    for key in ("pcp", "mean_pose_pcp"):
        assert table[key].keys() == {"strict", "mean"}
        assert all(rule.keys() == groups for rule in table[key].values())
        assert all(0 <= value <= 1 for rule in table[key].values() for value in rule.values())
    assert table["pdj"].keys() == {"0.1", "0.2"}
    assert len(table["oks_ap"]) == 10
    persons = load(tiny_data["val_annotations"])["annotations"]
    assert table["num_persons"] == len(persons)
    assert (table["box_source"], table["flip_test"], table["records"]) == ("ground truth", False, tiny_data["val"])
    assert table["checkpoint"].endswith("step-6")
    for name in ("pcp.png", "predictions.png"):
        assert Image.open(os.path.join(folder, name)).size[0] > 300


def test_there_is_a_coco_result_for_every_person(evaluation, tiny_data):
    results = load(os.path.join(evaluation[0], "keypoints.json"))
    persons = {(p["image_id"], tuple(p["bbox"])) for p in load(tiny_data["val_annotations"])["annotations"]}
    assert {(r["image_id"], tuple(r["bbox"])) for r in results} == persons
    assert len({r["score"] for r in results}) > len(results) / 2, "equal scores would leave AP to chance"


def test_mean_pose_pcp_is_that_of_a_model_that_always_predicts_the_mean_pose(evaluation, tiny_run, tiny_data):
    from kpose.metrics import tables

    persons = load(tiny_data["val_annotations"])["annotations"]
    # The file has pixel indices.
    truth = np.array([p["keypoints"] for p in persons], float).reshape(-1, 17, 3) + [0.5, 0.5, 0]
    mean_pose = workdir.load_mean_pose(tiny_run)
    placed = np.array([[b[0], b[1]] + (mean_pose + 0.5) * b[2:] for b in np.array([p["bbox"] for p in persons])])
    assert evaluation[1]["mean_pose_pcp"] == tables.pcp_table(truth, placed, skeletons.COCO)


def test_without_annotations_there_is_no_ap_and_flip_test_is_recorded(tiny_run, tiny_data, tmp_path, without_report):
    table = on_records.evaluate(tiny_run, tiny_data["val"], output_dir=str(tmp_path), flip_test=True)
    assert table["oks_ap"] is None and table["flip_test"] is True


def test_with_flip_test_the_keypoints_of_a_mirrored_image_are_mirrored(tiny_run):
    network = workdir.load_trained(tiny_run).network
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.float32)
    region = np.float32([[0, 0, 100, 100]])
    keypoints = [
        decoding.predict(network, picture, region, skeletons.COCO, flip_test=True)[0].numpy()[0, :, :2]
        for picture in (image, image[:, :, ::-1])
    ]
    mirrored = keypoints[1][list(skeletons.COCO.flip_order)] * [-1, 1] + [100, 0]
    np.testing.assert_allclose(mirrored, keypoints[0], atol=1e-3)


def test_the_exported_model_predicts_as_the_network_on_the_same_crop(graph_dir, tiny_run, tiny_data):
    network = workdir.load_trained(tiny_run).network
    data = load(tiny_data["val_annotations"])
    model, skeleton = Model(graph_dir), skeletons.COCO
    assert model.skeleton is skeleton
    for person in data["annotations"][:4]:
        name = next(i["file_name"] for i in data["images"] if i["id"] == person["image_id"])
        path = os.path.join(images_of(tiny_data), name)
        box = np.float32([person["bbox"]])
        served = model.predict(path, box).keypoints[0]
        crop = np.asarray(crops.crop_image(open_image(path).decode(), person["bbox"], (32, 32)))
        expected = decoding.predict(network, crop[None], box, skeleton)[0].numpy()[0]
        # The two decoders and resamplers may differ by a grey level.
        np.testing.assert_allclose(served, expected, atol=0.25)


@pytest.mark.parametrize("padding, aspect", [(1.0, 0.0), (1.25, 0.75)])
def test_the_graph_and_the_record_writer_cut_the_same_pixels(tiny_data, padding, aspect):
    data = load(tiny_data["val_annotations"])
    size = (32, 24)
    for person in data["annotations"]:
        name = next(i["file_name"] for i in data["images"] if i["id"] == person["image_id"])
        path = os.path.join(images_of(tiny_data), name)
        region = geometry.region_of(np.float64(person["bbox"]), padding, aspect)
        with open(path, "rb") as file:
            part, corner, _ = requests.decode_part(file.read(), np.float32(region), size)
        found = resampling.crop_image(part, np.float32(region) - tf.pad(corner, [[0, 2]]), size)
        expected = np.asarray(crops.crop_image(open_image(path).decode(), region, size), int)
        gap = np.abs(found.numpy() - expected)
        assert gap.max() <= 2 and gap.mean() < 0.2


def test_an_export_with_flip_test_predicts_as_the_network_with_it(tiny_run, signatures, tmp_path, monkeypatch):
    network = workdir.load_trained(tiny_run).network
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    region = np.float32([[0, 0, 32, 32]] * 2)
    # The server that would be written. Writing it takes seconds, and changes no number.
    servers = []
    monkeypatch.setattr(saved_model, "_save", lambda server, folder: servers.append(server))
    saved_model.export(tiny_run, str(tmp_path), flip_test=True)
    flipped, plain = (
        ask(images=tf.constant(images))["keypoints"].numpy()
        for ask in (servers[0].signatures["serving_images"], signatures["serving_images"])
    )
    expected = decoding.predict(network, images, region, skeletons.COCO, flip_test=True)[0]
    np.testing.assert_allclose(flipped, expected, atol=1e-3)
    assert np.abs(flipped - plain)[..., :2].max() > 0.05
    lite = litert.LiteModel((tmp_path / "1" / model_folder.LITE_FILE).read_bytes())
    np.testing.assert_allclose(lite(images=images)["keypoints"], expected, atol=1e-3)


def test_prediction_and_evaluation_agree(model_dir, evaluation, tiny_data, tmp_path):
    results = files.predict(model_dir, images_of(tiny_data), tiny_data["val_annotations"], str(tmp_path))
    evaluated = {(r["image_id"], tuple(r["bbox"])): r for r in load(os.path.join(evaluation[0], "keypoints.json"))}
    assert len(results) == len(evaluated)
    for result in results:
        other = evaluated[result["image_id"], tuple(result["bbox"])]
        # The crop of the record was encoded as JPEG once more and resampled from another size.
        gap = np.subtract(result["keypoints"], other["keypoints"]).reshape(-1, 3)
        assert np.abs(gap[:, :2]).max() < 0.05 * max(result["bbox"][2:])
        assert result["score"] == pytest.approx(other["score"], abs=1e-5)


def test_predict_writes_overlays_and_results_in_the_order_of_the_boxes(model_dir, tiny_data, tmp_path):
    data = load(tiny_data["val_annotations"])
    detections = [
        {"image_id": p["image_id"], "category_id": 1, "bbox": p["bbox"], "score": 0.9}
        for p in data["annotations"][::-1]
    ]
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps(detections))
    results = files.predict(model_dir, images_of(tiny_data), str(boxes), str(tmp_path / "out"))
    assert [(r["image_id"], r["bbox"]) for r in results] == [(d["image_id"], d["bbox"]) for d in detections]
    labelled = files.predict(model_dir, images_of(tiny_data), tiny_data["val_annotations"], None)
    np.testing.assert_allclose([r["score"] for r in results], [0.9 * r["score"] for r in labelled[::-1]], rtol=1e-5)
    assert load(tmp_path / "out" / "keypoints.json") == results
    names = {f"{image_id:012d}.jpg" for image_id in {d["image_id"] for d in detections}}
    assert set(os.listdir(tmp_path / "out")) == names | {"keypoints.json"}
    name = sorted(names)[0]
    overlay = np.asarray(Image.open(tmp_path / "out" / name), float)
    photo = np.asarray(open_image(os.path.join(images_of(tiny_data), name)).decode(), float)
    assert overlay.shape == photo.shape and (np.abs(overlay - photo).max(-1) > 60).sum() > 20

    files.predict(model_dir, images_of(tiny_data), str(boxes), str(tmp_path / "bare"), overlays=False)
    assert os.listdir(tmp_path / "bare") == ["keypoints.json"]


def test_without_boxes_the_whole_image_is_the_box(model_dir, tiny_data, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    path = os.path.join(images_of(tiny_data), "000000000001.jpg")
    results = files.predict(model_dir, path, output_dir=str(tmp_path), detector="none")
    width, height = open_image(path).decode().size
    assert [r["bbox"] for r in results] == [[0.0, 0.0, width, height]]


def test_the_export_loads_without_kpose(model_dir, tiny_data):
    path = os.path.join(images_of(tiny_data), "000000000001.jpg")
    script = f"""
import sys, tensorflow as tf
signature = tf.saved_model.load({os.path.join(model_dir, "1")!r}).signatures["serving_default"]
image = open({path!r}, "rb").read()
answer = signature(image_bytes=tf.constant([image] * 2), boxes=tf.constant([[10., 10., 90., 120.]] * 2))
assert "kpose" not in sys.modules
print(answer["keypoints"].shape, answer["scores"].shape, answer["keypoints"].dtype.name)
"""
    # -I: without the working directory and PYTHONPATH. -S would also hide TensorFlow.
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd="/")
    assert done.stdout.strip() == "(2, 17, 3) (2,) float32", done.stderr


def test_the_default_signature_has_the_documented_inputs_and_outputs(signatures):
    signature = signatures["serving_default"]
    inputs = {
        name: (spec.dtype.name, spec.shape.as_list()) for name, spec in signature.structured_input_signature[1].items()
    }
    assert inputs == {"image_bytes": ("string", [None]), "boxes": ("float32", [None, 4])}
    assert set(signature.structured_outputs) == {"keypoints", "scores"}


def test_png_and_jpeg_give_the_same_keypoints_and_boxes_may_extend_beyond_the_image(graph_dir, tmp_path):
    model = Model(graph_dir)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(20, 0).repeat(20, 1)
    boxes = [[10, 10, 100, 80], [-40, -30, 120, 120], [150, 100, 50, 50]]
    for name, data in (("png", tf.io.encode_png(pixels)), ("jpg", tf.io.encode_jpeg(pixels, quality=100))):
        (tmp_path / f"photo.{name}").write_bytes(data.numpy())
    images = str(tmp_path / "photo.png"), str(tmp_path / "photo.jpg"), pixels
    png, jpeg, array = (model.predict(image, boxes).keypoints for image in images)
    np.testing.assert_array_equal(png, array)
    np.testing.assert_allclose(png, jpeg, atol=2.0)
    assert np.isfinite(png).all()


@pytest.mark.parametrize(
    "boxes, message",
    [
        ([[0, 0, float("nan"), 5]], "NaN"),
        ([[0, 0, 0, 5]], "no width or no height"),
        ([[0, 0, 5, -5]], "no width or no height"),
    ],
)
def test_the_graph_refuses_bad_boxes(graph_dir, boxes, message):
    model = Model(graph_dir)
    with pytest.raises(InputError, match=message):
        model.predict(np.zeros((20, 20, 3), np.uint8), boxes)


def test_the_graph_refuses_different_counts_and_bytes_that_are_no_image(signatures):
    signature = signatures["serving_default"]
    image = tf.io.encode_png(np.zeros((20, 20, 3), np.uint8)).numpy()
    with pytest.raises(tf.errors.InvalidArgumentError, match="differ in number"):
        signature(image_bytes=tf.constant([image]), boxes=tf.ones([2, 4]))
    with pytest.raises(tf.errors.InvalidArgumentError):
        signature(image_bytes=tf.constant([b"GIF? no"]), boxes=tf.ones([1, 4]))


def test_each_export_is_a_new_version_and_a_failed_export_leaves_nothing(
    tiny_run, quick_exports, tmp_path, monkeypatch
):
    folder = str(tmp_path)
    with quick_exports():
        assert [saved_model.export(tiny_run, folder) for _ in range(2)] == [os.path.join(folder, v) for v in "12"]

    def fails(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(tf.saved_model, "save", fails)
    with pytest.raises(OSError, match="disk full"):
        saved_model.export(tiny_run, folder)
    assert sorted(name for name in os.listdir(folder) if os.path.isdir(os.path.join(folder, name))) == ["1", "2"]


def test_a_version_is_written_without_a_lite_file_if_it_is_not_wanted_or_not_possible(
    tiny_run, quick_exports, tmp_path, caplog
):
    def fails(*_):
        raise InputError("TensorFlow Lite cannot convert this network")

    text = "cannot convert this network; kpose.load and kpose-predict will run the SavedModel"
    with quick_exports(), caplog.at_level("WARNING", logger="absl"):
        unwanted = saved_model.export(tiny_run, str(tmp_path / "unwanted"), lite=False)
        assert text not in caplog.text
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(converted, "lite", fails)
            impossible = saved_model.export(tiny_run, str(tmp_path / "impossible"))
    assert text in caplog.text
    for folder in (unwanted, impossible):
        assert sorted(os.listdir(os.path.join(folder, "assets.extra")))[0] == "kpose.json"
        assert not os.path.exists(os.path.join(folder, model_folder.LITE_FILE))
        assert isinstance(networks.open_network(folder), networks.GraphNetwork)


def test_exports_at_the_same_time_get_different_versions(tiny_run, quick_exports, tmp_path):
    """A second export starts while the first is written, and takes its number."""
    folder, others = str(tmp_path), []
    # The patch of the test ends before that of the fixture.
    with quick_exports(), pytest.MonkeyPatch.context() as patch:
        save = saved_model._save

        def save_while_another_export_runs(*arguments):
            save(*arguments)
            if not others:
                others.append(None)
                others[0] = saved_model.export(tiny_run, folder)

        patch.setattr(saved_model, "_save", save_while_another_export_runs)
        assert saved_model.export(tiny_run, folder) == os.path.join(folder, "2")
    assert others == [os.path.join(folder, "1")]
    names = {name for name in os.listdir(folder) if os.path.isdir(os.path.join(folder, name))}
    assert names == {"1", "2"}
    assert (
        os.stat(os.path.join(folder, "1")).st_mode & 0o777
        == os.stat(os.path.join(folder, "1/variables")).st_mode & 0o777
    )


def test_leftovers_of_a_killed_export_are_removed(tiny_run, quick_exports, tmp_path):
    """Those of a running export stay; a version is larger than all others, whatever the time is."""
    killed, older, running = (tmp_path / f"writing-{name}" for name in ("killed", "older", "running"))
    script = (
        f"import os; from kpose.core import locks\nwith locks.locked({str(killed)!r}, ''):"
        f" open({str(killed / 'saved_model.pb')!r}, 'w').close(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    for folder in (older, running, tmp_path / "2000000000"):
        folder.mkdir()
        (folder / "saved_model.pb").touch()
    assert (killed / "saved_model.pb").exists() and (killed / "lock").exists()
    with locks.locked(str(running), ""), quick_exports():
        assert saved_model.export(tiny_run, str(tmp_path)) == str(tmp_path / "2000000001")
    left = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert left == {"2000000000", "2000000001", "writing-running"}
    assert "lock" not in os.listdir(tmp_path / "2000000001")


def test_bad_input_is_one_clear_error(model_dir, tiny_run, tiny_data, tmp_path):
    images = images_of(tiny_data)
    boxes = tiny_data["val_annotations"]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(open(os.path.join(images, "000000000001.jpg"), "rb").read()[:500])
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    other_images = tmp_path / "other_images.json"
    other_images.write_text(json.dumps([{"image_id": 10**6, "bbox": [0, 0, 1, 1]}]))
    odd = tmp_path / "odd.json"
    odd.write_text(json.dumps([{"image_id": 1}]))
    out = str(tmp_path / "out")
    cases = [
        (lambda: files.predict(str(tmp_path), images, boxes, out), "no exported model"),
        (lambda: files.predict(model_dir, str(tmp_path / "none*.jpg"), boxes, out), "no such file or folder"),
        (lambda: files.predict(model_dir, str(broken), output_dir=out), "broken.jpg.*cut short"),
        (lambda: files.predict(model_dir, str(text), output_dir=out), "text.jpg.*not an image"),
        (lambda: files.predict(model_dir, images, str(tmp_path / "none.json"), out), "none.json: no such"),
        (lambda: files.predict(model_dir, images, str(other_images), out), "none of its 1 boxes"),
        (lambda: files.predict(model_dir, images, str(odd), out), "is a person with a box"),
        (lambda: on_records.evaluate(str(tmp_path), tiny_data["val"]), "workdir|no such config"),
        (lambda: on_records.evaluate(tiny_run, "nowhere/val-*"), "no records match"),
        (lambda: saved_model.export(str(tmp_path), out), "no such config"),
    ]
    for call, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_run_without_checkpoints_is_an_error(tiny_data, tmp_path):
    config_lib.save(tiny.make_recipe(tiny_data["train"]), str(tmp_path / "config.json"))
    with pytest.raises(InputError, match="no checkpoint"):
        saved_model.export(str(tmp_path), str(tmp_path / "serving"))


def test_pixels_and_their_file_give_the_same_keypoints(signatures, tiny_data):
    path = os.path.join(images_of(tiny_data), "000000000001.jpg")
    boxes = tf.constant([[5.0, 5.0, 60.0, 90.0], [30.0, 10.0, 40.0, 40.0]])
    with open(path, "rb") as file:
        expected = signatures["serving_people"](image_bytes=tf.constant([file.read()]), boxes=boxes)
    pixels = tf.constant(np.asarray(open_image(path).decode()))
    found = signatures["serving_pixels"](image=pixels, boxes=boxes)
    np.testing.assert_allclose(found["keypoints"], expected["keypoints"], atol=1e-3)
    assert signatures["serving_pixels"](image=pixels, boxes=boxes[:0])["keypoints"].shape == (0, 17, 3)
    for image, some, message in (
        (pixels, boxes * [[1.0], [float("nan")]], r"boxes item\] \[1\] \[holds a NaN"),
        (pixels[:0], boxes, "no pixels"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            signatures["serving_pixels"](image=image, boxes=some)


def test_an_export_of_an_older_version_is_an_error(graph_dir, tmp_path):
    version, older = model_folder.version_folder(graph_dir), tf.Module()
    older.serve = tf.function(lambda images: {"keypoints": images}, [tf.TensorSpec([None], name="images")])
    shutil.copytree(version, tmp_path / "1", ignore=shutil.ignore_patterns("saved_model.pb", "variables"))
    tf.saved_model.save(older, str(tmp_path / "1"), signatures={"serving_images": older.serve})
    with pytest.raises(InputError, match="exported by an older kpose: export it again") as error:
        Model(str(tmp_path / "1"))
    helpers.one_line(error)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.floats(-80, 150), st.floats(-80, 150), st.floats(0.5, 300), st.floats(0.5, 300)),
    st.sampled_from([(8, 8), (40, 24), (64, 96)]),
    st.sampled_from([0, 1, 2]),
)
def test_a_crop_of_a_partly_decoded_jpeg_equals_that_of_the_whole_image(region, size, subsampling):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (13, 10, 3), np.uint8).repeat(9, 0).repeat(11, 1)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, subsampling=subsampling)
    region, content = tf.constant(region, tf.float32), tf.constant(buffer.getvalue())
    part, corner, sides = requests.decode_part(content, region, size)
    found = resampling.crop_image(part, region - tf.pad(corner, [[0, 2]]), size)
    expected = resampling.crop_image(requests.decode(content), region, size)
    # Coordinates relative to another corner round differently in float32, so some pixels differ by
    # one grey level.
    np.testing.assert_allclose(np.asarray(found, int), expected, atol=1)
    np.testing.assert_array_equal(sides, pixels.shape[:2])
