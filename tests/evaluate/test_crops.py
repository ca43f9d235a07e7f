"""An evaluation on images: the same predictions as a user's, for the same persons."""

import json
import os
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from kpose.core.errors import InputError
from kpose.core.skeletons import COCO
from kpose.data import coco_files, image_files
from kpose.evaluate import crops, on_detections, on_records
from kpose.export.graph import KeypointServer
from kpose.predict import files as predict_files
from kpose.runs.workdir import load_trained
from tests import helpers
from tests.core.test_cli import run

# Image -> boxes of its persons. One is larger than its image, one is half outside.
BOXES = {
    1: [[10.0, 5.0, 70.5, 60.25], [50.0, 20.0, 40.0, 65.0]],
    2: [[-20.0, -10.0, 160.0, 120.0]],
    3: [[90.0, 30.0, 60.0, 50.0], [3.5, 2.25, 30.0, 80.0], [40.0, 40.0, 20.0, 20.0]],
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """(folder of three images of 120 x 90 pixels, annotation file); persons of an image apart in the file."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(3)
    images, persons = [], []
    (folder / "images").mkdir()
    for number, boxes in BOXES.items():
        name = f"photo{number}.{'png' if number == 2 else 'jpg'}"
        pixels = random.integers(0, 256, (9, 12, 3), np.uint8)
        Image.fromarray(pixels).resize((120, 90), Image.Resampling.BICUBIC).save(folder / "images" / name, quality=90)
        # The ids of images and persons are in no order.
        images.append(helpers.image_entry(70 - number, name, (90, 120)))
        for place, box in enumerate(boxes):
            joints = helpers.keypoints_in(box, seed=10 * number + place)
            joints[:, :2] = joints[:, :2].clip(0, [120, 90])
            persons.append(helpers.annotation(500 - 10 * place - number, 70 - number, box, joints))
    persons = persons[::2] + persons[1::2]
    crowd = helpers.annotation(900, 69, [0.0, 0.0, 90.0, 90.0], helpers.keypoints_in([0, 0, 90, 90]), iscrowd=1)
    annotations = helpers.write_coco(folder / "labels.json", images, [*persons, crowd])
    return str(folder / "images"), annotations


def read_results(folder):
    """Arrays of keypoints.json, sorted by image and box: keys, keypoints [N, K, 3], scores [N]."""
    with open(os.path.join(folder, "keypoints.json")) as file:
        results = sorted(json.load(file), key=lambda result: (result["image_id"], result["bbox"]))
    keys = [(result["image_id"], result["bbox"]) for result in results]
    return keys, np.reshape([r["keypoints"] for r in results], (-1, 17, 3)), np.array([r["score"] for r in results])


def test_an_evaluation_on_images_predicts_what_kpose_predict_does(
    photos, tiny_run, model_dir, tmp_path, without_report
):
    images, annotations = photos
    metrics = on_records.evaluate(tiny_run, None, annotations, str(tmp_path / "evaluation"), images=images)
    predict_files.predict(model_dir, images, annotations, str(tmp_path / "predicted"), overlays=False)
    own, predicted = (read_results(tmp_path / name) for name in ("evaluation", "predicted"))
    assert own[0] == predicted[0] and len(own[0]) == 6
    np.testing.assert_allclose(own[1][..., :2], predicted[1][..., :2], atol=0.01)
    np.testing.assert_allclose(own[1][..., 2], predicted[1][..., 2], atol=1e-4)
    np.testing.assert_allclose(own[2], predicted[2], atol=1e-4)
    # All boxes are the labels', so that the evaluation of these results gives the same metrics.
    path = str(tmp_path / "predicted" / "keypoints.json")
    expected = on_detections.evaluate(path, annotations, str(tmp_path / "results"))
    assert metrics["oks_ap"] == pytest.approx(expected["oks_ap"], nan_ok=True)
    assert metrics["pcp"]["strict"] == pytest.approx(expected["pcp"]["strict"])
    assert metrics["pdj"] == pytest.approx(expected["pdj"])
    assert metrics["pixels"] == images and metrics["records"] is None and metrics["box_source"] == "ground truth"
    assert metrics["num_persons"] == 6 and metrics["num_images"] == metrics["bootstrap"]["num_images"] == 3


def test_a_flip_test_on_images_is_that_of_the_server(photos, tiny_run, tmp_path, without_report):
    images, annotations = photos
    on_records.evaluate(tiny_run, None, annotations, str(tmp_path), flip_test=True, images=images)
    trained = load_trained(tiny_run)
    server = KeypointServer.from_config(trained.network, trained.config, trained.skeleton, flip_test=True)
    keys, keypoints, scores = read_results(tmp_path)
    for number, boxes in BOXES.items():
        (name,) = (name for name in os.listdir(images) if name.startswith(f"photo{number}"))
        pixels = np.asarray(image_files.open_image(os.path.join(images, name)).decode())
        answer = server.serve_pixels(pixels, np.float32(boxes))
        places = [keys.index((70 - number, box)) for box in boxes]
        # Results are pixel indices.
        np.testing.assert_allclose(keypoints[places] + [0.5, 0.5, 0], answer["keypoints"], atol=0.01)
        np.testing.assert_allclose(scores[places], answer["scores"], atol=1e-4)


def test_records_name_the_persons_and_images_give_the_pixels(
    tiny_run, tiny_data, tiny_evaluation, tmp_path, without_report
):
    """The command, with the images in a .zip file; the records hold crops of 48 x 48 pixels."""
    folder, archive = os.path.join(tiny_data["folder"], "images", "val"), str(tmp_path / "val.zip")
    with zipfile.ZipFile(archive, "w") as file:
        for name in os.listdir(folder):
            file.write(os.path.join(folder, name), f"val/{name}")
    shutil.copytree(tiny_evaluation[0], tmp_path / "stored")
    found = {"stored": tiny_evaluation[1]}
    for name, changes in {
        "both": {"records_pattern": tiny_data["val"], "images": archive},
        "images": {"images": folder},
    }.items():
        found[name] = on_records.evaluate(
            tiny_run, annotations=tiny_data["val_annotations"], output_dir=str(tmp_path / name), **changes
        )
    assert [found[name]["pixels"] for name in found] == ["stored crops", archive, folder]
    assert found["both"]["oks_ap"] == pytest.approx(found["images"]["oks_ap"])
    assert found["both"]["mean_pose_pcp"] == found["stored"]["mean_pose_pcp"]
    stored, both, own = (read_results(tmp_path / name) for name in found)
    np.testing.assert_allclose(both[1], own[1], atol=0.01)
    # The stored crops are JPEG of another size: the predictions are near, and not the same.
    assert 0.01 < np.abs(stored[1] - both[1])[..., :2].mean() < 5
    # The images are numbered alike, so that the two evaluations can be compared.
    arrays = [np.load(tmp_path / name / "persons.npz") for name in found]
    pairs = [dict(zip(part["annotation_id"].tolist(), part["image"].tolist(), strict=True)) for part in arrays]
    assert len(set(pairs[0].values())) == 8
    for one in pairs[1:]:
        assert one.keys() == pairs[0].keys()
        assert len({(one[person], image) for person, image in pairs[0].items()}) == 8


def test_the_crops_of_batches_and_of_single_persons_are_the_same(photos, tiny_run):
    images, annotations = photos
    persons = crops.persons_of_labels(coco_files.read_labels(annotations, COCO))
    source = crops.ImageCrops(images, persons, load_trained(tiny_run).config)
    (batch,) = source
    assert batch["image"].shape == (6, 32, 32, 3) and len(source) == 1
    for number, crop in source.read([5, 0, 2]).items():
        np.testing.assert_array_equal(crop, batch["image"][number])


def test_labels_of_the_turned_image_get_the_turned_pixels(tiny_run, tmp_path):
    """A camera image with an EXIF orientation, labelled in a viewer that turns it."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    Image.fromarray(np.rot90(np.asarray(Image.open(tmp_path / "a.jpg")), -1)).save(tmp_path / "b.png")
    box = [5.0, 10.0, 40.0, 60.0]
    images = [helpers.image_entry(1, "a.jpg", (80, 60)), helpers.image_entry(2, "b.png", (80, 60))]
    people = [helpers.annotation(i, i, box, helpers.keypoints_in(box)) for i in (1, 2)]
    labels = coco_files.read_labels(helpers.write_coco(tmp_path / "l.json", images, people), COCO)
    source = crops.ImageCrops(str(tmp_path), crops.persons_of_labels(labels), load_trained(tiny_run).config)
    turned, expected = source.read([0, 1]).values()
    np.testing.assert_array_equal(turned, expected)


def test_wrong_images_are_one_line(photos, tiny_run, tmp_path, monkeypatch, capfd):
    images, annotations = photos

    def fails_with(message, folder, **changes):
        arguments = {"annotations": annotations, "output_dir": str(tmp_path)} | changes
        with pytest.raises(InputError, match=message) as error:
            on_records.evaluate(tiny_run, images=folder, **arguments)
        helpers.one_line(error)

    Image.new("RGB", (50, 50)).save(tmp_path / "photo1.jpg")
    fails_with("2 of 3 images are not there, such as photo[23]", str(tmp_path))
    for number, suffix in ((2, "png"), (3, "jpg")):
        Image.new("RGB", (120, 90)).save(tmp_path / f"photo{number}.{suffix}")
    fails_with("photo1.jpg: the image has 50 x 50 pixels, but its labels are for 120 x 90", str(tmp_path))
    fails_with("no such image folder", str(tmp_path / "nowhere"))
    fails_with("give records, or images and annotations", images, annotations=None)
    far = helpers.write_json(
        tmp_path / "far.json",
        {
            "images": [helpers.image_entry(1, "photo1.jpg", (90, 120))],
            "annotations": [helpers.annotation(4, 1, [0, 0, 1e9, 9], helpers.keypoints_in([0, 0, 9, 9]))],
            "categories": [{"id": 1, "name": "person"}],
        },
    )
    fails_with("far.json: no labelled person with a box", images, annotations=far)
    status, _, err = run(monkeypatch, capfd, "kpose.evaluate", f"--workdir={tiny_run}", f"--images={images}")
    assert status == 1 and "--annotations is missing" in err
    status, _, err = run(monkeypatch, capfd, "kpose.evaluate", f"--images={images}", "--results=keypoints.json")
    assert status == 1 and "--images is for the evaluation of a run" in err
