"""kpose.load and kpose-predict, with the model that is shipped, with detectors, for pipes."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import kpose
from kpose import detectors, predictor, pretrained, skeletons
from kpose.errors import InputError
from kpose.images import read_image
from tests.test_cli import run

PHOTOS = os.path.join(os.environ.get("KPOSE_DATA", "../shared/data"), "coco")


@pytest.fixture(scope="module")
def model():
    return kpose.load()


@pytest.fixture
def photo(tiny_data):
    return os.path.join(tiny_data["folder"], "images", "val", "000000000001.jpg")


def _found(image):
    """A detector that finds two persons everywhere."""
    height, width = image.shape[:2]
    return np.float32([[0, 0, width / 2, height], [width / 2, 0, width / 2, height]]), np.float32([0.9, 0.5])


def test_three_lines_of_python(model, photo):
    people = model.predict(photo, [[10, 10, 80, 90], [0, 0, 40, 40]])
    assert people["keypoints"].shape == (2, 17, 3) and people["scores"].shape == (2,)
    assert model.skeleton is skeletons.COCO
    array = np.asarray(read_image(photo))
    both = model.predict([photo, array], detector=_found)
    assert [person["boxes"].shape for person in both] == [(2, 4), (2, 4)]
    np.testing.assert_allclose(both[0]["keypoints"], both[1]["keypoints"], atol=2.0)
    assert model.predict(array)["boxes"].tolist() == [[0, 0, array.shape[1], array.shape[0]]]
    with pytest.raises(InputError, match=r"shape \(5, 5\).*\[H, W, 3\] uint8"):
        model.predict(np.zeros((5, 5), np.uint8))
    with pytest.raises(InputError, match="2 images, but boxes for 1"):
        model.predict([array, array], [[[0, 0, 5, 5]]])


def test_importing_kpose_needs_no_tensorflow():
    code = "import sys, kpose; print('tensorflow' in sys.modules, 'keras' in sys.modules, callable(kpose.load))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False", "True"], done.stderr


def test_json_for_pipes_is_alone_on_stdout(photo, monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, out, _ = run(monkeypatch, capfd, "kpose.predict", photo, photo, "--json", "--detector=none")
    results = json.loads(out)
    assert status == 0 and [len(person["keypoints"]) for person in results] == [51]
    assert os.listdir(tmp_path) == []
    status, _, err = run(monkeypatch, capfd, "kpose.predict")
    assert status == 1 and "--images is missing" in err


def test_a_damaged_photograph_among_others_is_told_and_the_others_answered(photo, tmp_path, caplog):
    shutil.copy(photo, tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match="1 of 2 images could not be used"):
        predictor.predict(None, str(tmp_path), output_dir=str(tmp_path / "out"), detector=_found)
    assert "b.jpg: " in caplog.text
    results = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert len(results) == 2 and (tmp_path / "out" / "a.png").exists()


def test_a_photograph_that_is_stored_turned_is_answered_upright(model, photo, tmp_path):
    upright = read_image(photo)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    turned, straight = (model.predict(str(tmp_path / f"{name}.png")) for name in ("turned", "upright"))
    np.testing.assert_array_equal(turned["boxes"], straight["boxes"])
    np.testing.assert_allclose(turned["keypoints"], straight["keypoints"], atol=1e-2)


def test_the_shipped_model_is_small_and_refused_when_damaged(tmp_path, monkeypatch):
    sizes = [os.path.getsize(os.path.join(pretrained.FOLDER, name)) for name in os.listdir(pretrained.FOLDER)]
    assert sum(sizes) < 12e6 and pretrained.DEFAULT in pretrained.names()
    shutil.copytree(pretrained.FOLDER, tmp_path / "models")
    monkeypatch.setattr(pretrained, "FOLDER", str(tmp_path / "models"))
    path = tmp_path / "models" / f"{pretrained.DEFAULT}.npz"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="damaged .*install kpose again"):
        pretrained.load()
    with pytest.raises(InputError, match="no model is called 'other': there are movenet"):
        pretrained.load("other")


def test_a_run_is_shipped_as_it_answers(tiny_run, tmp_path, monkeypatch):
    from kpose import runs

    pretrained.ship(tiny_run, "tiny_v1", {"note": "of a test"}, folder=str(tmp_path))
    monkeypatch.setattr(pretrained, "FOLDER", str(tmp_path))
    _, network = pretrained.load_network("tiny_v1")
    trained, _ = runs.load_network(tiny_run, runs.load_config(tiny_run))
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    # The weights are stored in float16.
    np.testing.assert_allclose(network(images)["keypoints"], trained(images)["keypoints"], atol=5e-3)
    card = json.loads((tmp_path / "tiny_v1.json").read_text())
    assert card["note"] == "of a test" and card["recipe"]["name"] == "tiny"


def test_detectors_by_name(monkeypatch):
    with pytest.raises(InputError, match="it is one of auto, none, ssdlite"):
        detectors.find("other")
    monkeypatch.setattr(detectors, "installed", lambda: False)
    with pytest.raises(InputError, match=r"pip install 'kpose\[detector\]'"):
        detectors.find("ssdlite")


def test_a_keras_cv_detector_tells_persons_in_pixels_of_the_photograph(monkeypatch):
    class Fake:
        def predict(self, images, verbose):
            assert images.shape == (1, 640, 640, 3)
            return {
                "boxes": np.float32([[[0, 0, 64, 128], [320, 0, 64, 64], [1, 1, 5, 5]]]),
                "classes": np.array([[14, 14, 2]]),
                "confidence": np.float32([[0.5, 0.9, 0.9]]),
            }

    monkeypatch.setattr(detectors, "_keras_cv_model", lambda preset: Fake())
    boxes, scores = detectors.find("keras_cv:yolo_v8_m_pascalvoc")(np.zeros((160, 320, 3), np.uint8))
    np.testing.assert_allclose(boxes, [[160, 0, 32, 32], [0, 0, 32, 64]])
    np.testing.assert_allclose(scores, [0.9, 0.5])


@pytest.mark.skipif(not detectors.installed(), reason="the extra 'detector' is not installed")
@pytest.mark.skipif(not os.path.isdir(PHOTOS), reason="no COCO photographs there (KPOSE_DATA)")
def test_the_ssdlite_detector_finds_people_in_real_photographs():
    with open(os.path.join(PHOTOS, "annotations", "person_keypoints_devval.json")) as file:
        data = json.load(file)
    large = [a for a in data["annotations"] if a["bbox"][3] > 200 and a["num_keypoints"] > 12 and not a["iscrowd"]][:10]
    names = {image["id"]: image["file_name"] for image in data["images"]}
    detect, found = detectors.find("ssdlite"), 0
    for person in large:
        image = read_image(os.path.join(PHOTOS, "images", names[person["image_id"]]))
        boxes, _ = detect(np.asarray(image))
        x, y, w, h = person["bbox"]
        for bx, by, bw, bh in boxes:
            common = max(0, min(x + w, bx + bw) - max(x, bx)) * max(0, min(y + h, by + bh) - max(y, by))
            found += common / (w * h + bw * bh - common) > 0.5
    assert found >= 8
