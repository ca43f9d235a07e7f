"""Baselines for records and batches: common ways to do the same without kpose.

They need packages that kpose does not need (the extra `benchmark`).
"""

import os

import numpy as np
import tensorflow as tf

from kpose.core import startup


def write_crops(annotations, persons, images, size, folder):
    """Writes a JPEG file for each person: reads the image, crops, resizes, writes.

    Args:
        annotations: `write_coco.annotations.Annotations`.
        persons: list of its annotations.
        images: folder of the images.
        size: (height, width) of the files in pixels.
        folder: folder for the files.
    """
    import cv2

    cv2.setNumThreads(1)
    for person in persons:
        image = cv2.imread(os.path.join(images, annotations.images[person.image_id].file_name))
        x, y, w, h = (round(side) for side in person.box)
        crop = image[max(y, 0) : y + h, max(x, 0) : x + w]
        cv2.imwrite(os.path.join(folder, f"{person.id}.jpg"), cv2.resize(crop, size[::-1]))


def decoded_batches(paths, crop_size, batch_size):
    """A minimal tf.data pipeline: decoding and batching only.

    Args:
        paths: record files.
        crop_size: (height, width) of the stored crops in pixels.
        batch_size: samples in a batch.

    Returns:
        Endless `tf.data.Dataset` of [B, H, W, 3] uint8.
    """
    spec = {"crop/jpeg": tf.io.FixedLenFeature([], tf.string)}

    def decode(serialised):
        jpeg = tf.io.parse_single_example(serialised, spec)["crop/jpeg"]
        return tf.ensure_shape(tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE"), [*crop_size, 3])

    dataset = tf.data.TFRecordDataset(paths).repeat().map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def keras_cv_batches(dataset, size, augment):
    """Batches augmented by layers of keras_cv, one layer for each step of `augment`.

    Args:
        dataset: `tf.data.Dataset` of [B, H, W, 3] uint8.
        size: (height, width) of the result in pixels; the middle of each image is used.
        augment: a recipe's `augment` section.

    Returns:
        `tf.data.Dataset` of [B, *size, 3] float32.
    """
    layers = startup.import_keras_cv().layers
    levels, jitter = (0, 255), augment.jitter

    def chosen(layer, rate):
        return layers.RandomApply(layer, rate=rate)

    steps = [
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(augment.rotation / 360, fill_mode="constant"),
        layers.RandomZoom((augment.scale[0] - 1, augment.scale[1] - 1), fill_mode="constant"),
        layers.RandomTranslation(augment.shift, augment.shift, fill_mode="constant"),
        chosen(layers.Grayscale(output_channels=3), augment.grey),
        layers.RandomColorJitter(levels, jitter, jitter, (0.5 - jitter / 2, 0.5 + jitter / 2), 0.1 * jitter),
        chosen(layers.Solarization(levels), augment.solarise),
        chosen(layers.Posterization(levels, bits=4), augment.posterise),
        chosen(layers.RandomSharpness((0, 1), levels), augment.sharpness),
        chosen(layers.Equalization(levels), augment.equalise),
    ]

    def apply(images):
        top, left = ((there - wanted) // 2 for there, wanted in zip(images.shape[1:3], size, strict=True))
        images = tf.cast(images[:, top : top + size[0], left : left + size[1]], tf.float32)
        for step in steps:
            images = step(images, training=True)
        return images

    return dataset.map(apply, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def torch_batches(jpegs, keypoints, size, share, batch_size, augment, workers):
    """Batches of a torch DataLoader: OpenCV decodes and warps, albumentations changes colours.

    Args:
        jpegs: encoded crops.
        keypoints: [N, K, 2] joints in pixels of the crops.
        size: (height, width) of the result in pixels.
        share: side of the visible region, as a fraction of the side of the crop.
        batch_size: samples in a batch.
        augment: a recipe's `augment` section.
        workers: number of processes.

    Returns:
        An endless iterator of batches.
    """
    import torch

    loader = torch.utils.data.DataLoader(
        _TorchPersons(jpegs, keypoints, size, share, augment.to_dict()),
        batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        prefetch_factor=4,
        drop_last=True,
    )
    while True:
        yield from loader


class _TorchPersons:
    def __init__(self, jpegs, keypoints, size, share, augment):
        self.jpegs, self.keypoints, self.size, self.share, self.augment = jpegs, keypoints, size, share, augment
        self.colours = None

    def __len__(self):
        return len(self.jpegs)

    def __getitem__(self, index):
        import cv2
        import torch

        if self.colours is None:
            cv2.setNumThreads(0)
            torch.set_num_threads(1)
            self.colours = _albumentations(self.augment)
        a, rng = self.augment, np.random
        image = cv2.cvtColor(cv2.imdecode(np.frombuffer(self.jpegs[index], np.uint8), 1), cv2.COLOR_BGR2RGB)
        height, width = self.size
        zoom = width / (image.shape[1] * self.share * rng.uniform(*a["scale"]))
        middle = image.shape[1] / 2, image.shape[0] / 2
        matrix = cv2.getRotationMatrix2D(middle, rng.uniform(-a["rotation"], a["rotation"]), zoom)
        matrix[:, 2] += np.array([width, height]) * (0.5 + rng.uniform(-a["shift"], a["shift"], 2)) - middle
        if rng.random() < a["flip"]:
            matrix[0] *= -1
            matrix[0, 2] += width - 1
        image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
        points = self.keypoints[index] @ matrix[:, :2].T + matrix[:, 2]
        changed = self.colours(image=image)["image"]
        return torch.from_numpy(changed), torch.from_numpy(points.astype(np.float32))


def _albumentations(augment):
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    jitter = augment["jitter"]
    around_one = (1 - jitter, 1 + jitter)
    return albumentations.Compose(
        [
            albumentations.ToGray(p=augment["grey"]),
            albumentations.ColorJitter(around_one, around_one, around_one, (-0.1 * jitter, 0.1 * jitter), p=1.0),
            albumentations.Solarize((0.25, 1.0), p=augment["solarise"]),
            albumentations.Posterize((2, 6), p=augment["posterise"]),
            albumentations.Sharpen(p=augment["sharpness"]),
            albumentations.Equalize(p=augment["equalise"]),
        ]
    )
