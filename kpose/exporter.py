"""A trained run as a SavedModel: photographs and boxes in, keypoints in original pixels out."""

import os
import shutil

import tensorflow as tf
from absl import logging

from kpose import files, geometry, inference, input_pipeline, runs, skeletons

# Beside saved_model.pb, where TF Serving leaves it alone and `kpose.predict` reads it.
DESCRIPTION_FILE = "assets.extra/kpose.json"


class KeypointServer(tf.Module):
    """What is exported: decoding, cropping, the network and the way back, in one graph.

    Args:
        network: the trained network.
        skeleton: its `Skeleton`.
        input_size: (height, width) of its input.
        padding: the network sees the box enlarged by this factor.
        flip_test: average each answer with that for the mirror image.
        square: it sees the square round the box.
    """

    def __init__(self, network, skeleton, input_size, padding, flip_test=False, square=False):
        super().__init__(name="kpose")
        self.network = network
        self._skeleton = skeleton
        self._input_size = tuple(input_size)
        self._padding = padding
        self._flip_test = flip_test
        self._square = square

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="image_bytes"),
            tf.TensorSpec([None, 4], tf.float32, name="boxes"),
        ],
        autograph=False,
    )
    def serve(self, image_bytes, boxes):
        """One person an image.

        Args:
            image_bytes: [N] JPEG or PNG files.
            boxes: [N, 4] the persons' boxes, xywh in pixels of their images.

        Returns:
            keypoints [N, K, 3] float32: x, y in pixels of the image, the joint's score; scores [N] float32.
        """
        sizes = [
            tf.debugging.assert_equal(
                tf.shape(image_bytes)[0], tf.shape(boxes)[0], "image_bytes and boxes differ in number"
            ),
            tf.debugging.assert_all_finite(boxes, "a box holds a NaN or an infinity"),
            tf.debugging.assert_positive(boxes[:, 2:], "a box has no width or no height"),
        ]
        with tf.control_dependencies([op for op in sizes if op is not None]):
            regions = geometry.region_of(tf.identity(boxes), self._padding, self._square)
        crops = tf.map_fn(
            lambda item: input_pipeline.crop_photograph(item[0], item[1], self._input_size),
            (image_bytes, regions),
            fn_output_signature=tf.TensorSpec((*self._input_size, 3), tf.uint8),
        )
        keypoints, scores = inference.predict(self.network, crops, regions, self._skeleton, self._flip_test)
        return {"keypoints": keypoints, "scores": scores}


def export(workdir, output_dir, flip_test=False, best=False):
    """Writes a checkpoint of a run as `output_dir/<version>/`, the next free version number.

    The folder is written aside and renamed into place: TF Serving never sees a half version.

    Args:
        workdir: folder of the training run.
        output_dir: the model's base folder.
        flip_test: average each answer with that for the mirror image, in the graph.
        best: export the checkpoint with the best validation score, instead of the newest.

    Returns:
        The version's folder.

    Raises:
        InputError: no such run or no checkpoint.
    """
    config = runs.load_config(workdir)
    skeleton = skeletons.get(config.skeleton)
    network, checkpoint = runs.load_network(workdir, config, best)
    data = config.data
    server = KeypointServer(network, skeleton, config.model.input_size, data.padding, flip_test, data.square)
    os.makedirs(output_dir, exist_ok=True)
    version = 1 + max((int(name) for name in os.listdir(output_dir) if name.isdigit()), default=0)
    folder = os.path.join(output_dir, str(version))
    # A name that is no number: TF Serving does not look at it.
    aside = os.path.join(output_dir, f"writing-{version}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        tf.saved_model.save(server, aside, signatures={"serving_default": server.serve})
        description = {"skeleton": skeleton.name, "recipe": config.name, "checkpoint": os.path.basename(checkpoint)}
        files.write_json(os.path.join(aside, DESCRIPTION_FILE), description)
        os.rename(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    logging.info("exported %s to %s", checkpoint, folder)
    return folder
