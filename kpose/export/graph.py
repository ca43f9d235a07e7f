"""The graph that is exported: images and boxes in, keypoints in pixels of the images out.

Keypoints and boxes are in the original frame of `kpose.core.geometry`: pixel i covers [i, i + 1).
COCO's files have pixel indices, half a pixel less.

The graph serves untrusted clients. Every request ends in an answer or in one InvalidArgument error.
The error gives the reason and, unless it comes from a decoder, the number of the item. No request
crashes the server or takes more memory than `MAX_PIXELS`, `MAX_SIDE` and `CHUNK` allow:

    bytes that are no JPEG or PNG, are cut short, or      error with the item's number
      declare too many pixels
    a JPEG with damaged data                              decoded as far as possible
    a PNG damaged after its header, or a JPEG with a      the decoder's error, without a number
      damaged header
    a box with a NaN, an infinity or a number beyond      error with the item's number
      `FARTHEST`, or without width or height
    images or boxes that announce more pixels than        error with the item's number
      `WORK` and `WORK_PER_BYTE` of `kpose.core.limits`
      allow, or more than `MAX_BOXES` boxes
    a box that contains no pixel of its image             answer with scores of 0
    a crop with a NaN or an infinity                      error with the item's number
    a network whose answer is not finite                  error with the item's number
    different numbers of images and boxes                 error
"""

import functools

import tensorflow as tf

from kpose.core import geometry
from kpose.core.limits import NO_ANSWER, NOT_FINITE
from kpose.data import resampling
from kpose.export.requests import (
    check_areas,
    check_boxes,
    check_finite,
    check_pixels,
    check_work,
    decode,
    decode_part,
    inside,
    part_of,
    same_number,
)
from kpose.models import decoding

# Images of a request that are decoded in parallel.
DECODED_AT_ONCE = 4
# Crops in one batch of the network. A request with more boxes takes longer, but not more memory.
CHUNK = 64


class KeypointServer(tf.Module):
    """The signatures of an exported model.

    Args:
        network: the trained network.
        skeleton: the `Skeleton` of its keypoints.
        input_size: (height, width) of its input in pixels.
        padding: factor by which each box is enlarged.
        flip_test: average each prediction with the prediction for the mirrored image.
        aspect: width / height to which each box is extended; 0: the box keeps its shape.
        offset: `decoding.label_offset` of the network's recipe, in pixels of the image.
        calibration: of the network's scores; None: they are not calibrated.
    """

    def __init__(
        self,
        network,
        skeleton,
        input_size,
        padding,
        flip_test=False,
        aspect=0.0,
        offset=(0.0, 0.0),
        calibration=None,
    ):
        super().__init__(name="kpose")
        # TensorFlow's variables, not Keras'. For a Keras variable, a SavedModel holds the variable
        # that the graph reads and a copy, and the loader of TF Serving fills only the copy.
        self.variables_of_network = [variable.value for variable in network.variables]
        self._predict = functools.partial(
            decoding.predict,
            network,
            skeleton=skeleton,
            flip_test=flip_test,
            offset=offset,
            calibration=calibration,
        )
        self._joints = skeleton.num_joints
        # Crops alone do not say how they are stretched.
        self.takes_aspects = getattr(network, "needs_aspects", False) and not aspect
        self._input_size = tuple(input_size)
        self._padding = padding
        self._aspect = aspect

    @classmethod
    def from_config(cls, network, config, skeleton, flip_test=False, calibration=None):
        """Returns the server of a network.

        Args:
            network: the trained network.
            config: its recipe.
            skeleton: the `Skeleton` of its keypoints.
            flip_test: average each prediction with the prediction for the mirrored image.
            calibration: of the network's scores; None: they are not calibrated.
        """
        data, offset = config.data, decoding.label_offset(config)
        size = config.model.input_size
        return cls(network, skeleton, size, data.padding, flip_test, data.aspect, offset, calibration)

    @property
    def signatures(self):
        """The signatures by name, for `tf.saved_model.save`."""
        return {
            "serving_default": self.serve,
            "serving_people": self.serve_people,
            "serving_pixels": self.serve_pixels,
            "serving_images": self.serve_checked_images.get_concrete_function(*self.crop_inputs(None)),
        }

    def crop_inputs(self, count):
        """Returns the list of `tf.TensorSpec` of the arguments of `serve_images`.

        Args:
            count: number of crops; None: any.
        """
        crops = [tf.TensorSpec([count, *self._input_size, 3], tf.float32, name="images")]
        return [*crops, tf.TensorSpec([count], tf.float32, name="aspects")] if self.takes_aspects else crops

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="image_bytes"),
            tf.TensorSpec([None, 4], tf.float32, name="boxes"),
        ],
        autograph=False,
    )
    def serve(self, image_bytes, boxes):
        """Returns the keypoints of one person per image.

        Args:
            image_bytes: [N] JPEG or PNG files.
            boxes: [N, 4] float32, one box per image: xywh in pixels of the image.

        Returns:
            keypoints [N, K, 3] float32: x, y in pixels of the image, and the joint's score.
            scores [N] float32: the persons' scores.
        """
        with tf.device("/CPU:0"), tf.control_dependencies([same_number(image_bytes, boxes), *check_boxes(boxes)]):
            files = tf.identity(image_bytes)
        with tf.device("/CPU:0"), tf.control_dependencies(check_work(files)):
            files = tf.identity(files)

        def crops_of(start, end):
            return tf.map_fn(
                lambda item: self._crop(*item),
                (files[start:end], boxes[start:end]),
                fn_output_signature=(tf.TensorSpec((*self._input_size, 3), tf.uint8), tf.TensorSpec((), tf.bool)),
                parallel_iterations=DECODED_AT_ONCE,
            )

        return self._answer(crops_of, boxes)

    @tf.function(
        input_signature=[
            tf.TensorSpec([1], tf.string, name="image_bytes"),
            tf.TensorSpec([None, 4], tf.float32, name="boxes"),
        ],
        autograph=False,
    )
    def serve_people(self, image_bytes, boxes):
        """Returns the keypoints of several persons in one image, which is decoded once.

        Args:
            image_bytes: [1] a JPEG or PNG file.
            boxes: [N, 4] float32, one box per person: xywh in pixels of the image.

        Returns:
            As `serve`.
        """
        with tf.device("/CPU:0"), tf.control_dependencies(check_boxes(boxes)):
            image_bytes = tf.identity(image_bytes)
        with tf.device("/CPU:0"), tf.control_dependencies(check_work(image_bytes)):
            image = decode(image_bytes[0])
        return self._answer_people(image, boxes, tf.strings.length(image_bytes[0]))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, 3], tf.uint8, name="image"),
            tf.TensorSpec([None, 4], tf.float32, name="boxes"),
        ],
        autograph=False,
    )
    def serve_pixels(self, image, boxes):
        """Returns the keypoints of several persons in one decoded image.

        Args:
            image: [H, W, 3] uint8, RGB.
            boxes: [N, 4] float32, one box per person: xywh in pixels of the image.

        Returns:
            As `serve`.
        """
        with tf.device("/CPU:0"), tf.control_dependencies([*check_boxes(boxes), *check_pixels(image)]):
            image = tf.identity(image)
        return self._answer_people(image, boxes, tf.size(image))

    @tf.function(autograph=False)
    def serve_checked_images(self, images, aspects=None):
        """Returns as `serve_images`; fails at crops and answers with a NaN or an infinity."""
        checks = [check_finite(images, "images", NOT_FINITE)]
        checks += [] if aspects is None else [check_finite(aspects, "aspects", NOT_FINITE)]
        with tf.control_dependencies(checks):
            answer = self.serve_images(tf.identity(images), aspects)
        return _finite(answer, "images")

    @tf.function(autograph=False)
    def serve_images(self, images, aspects=None):
        """Returns the keypoints of precomputed crops.

        Args:
            images: [N, H, W, 3] float32 of 0..255, at the network's input size.
            aspects: [N] float32, width / height in pixels of the image of what each crop shows. Only
                for a cascade with stretched crops (`takes_aspects`), which needs it.

        Returns:
            keypoints [N, K, 3] float32: x, y in pixels of the crop, and the joint's score.
            scores [N] float32: the persons' scores.
        """
        if self.takes_aspects and aspects is None:
            raise ValueError("the crops are stretched, so this network needs the argument aspects")
        height, width = self._input_size
        regions = tf.repeat(tf.constant([[0.0, 0.0, width, height]]), tf.shape(images)[0], axis=0)
        keypoints, scores = self._predict(images, regions, aspects=aspects)
        return {"keypoints": keypoints, "scores": scores}

    def _crop(self, image_bytes, box):
        """Returns the crop [H, W, 3] uint8 of a box, and whether the box overlaps the image."""
        region = geometry.region_of(box[None], self._padding, self._aspect)[0]
        part, corner, sides = decode_part(image_bytes, region, self._input_size)
        return self._crop_part(part, corner, region), inside(sides, box[None])[0]

    def _crop_part(self, part, corner, region):
        """Returns the crop [H, W, 3] uint8 of a region, from a part of its image."""
        return resampling.crop_image(part, region - tf.pad(corner, [[0, 2]]), self._input_size)

    def _answer_people(self, image, boxes, size):
        """Returns the network's predictions for boxes in one image.

        Args:
            image: [H, W, 3] uint8.
            boxes: [N, 4] float32 xywh.
            size: bytes of the image in the request, int32.
        """
        regions = geometry.region_of(boxes, self._padding, self._aspect)
        with tf.device("/CPU:0"), tf.control_dependencies(check_areas(regions, image, tf.cast(size, tf.int64))):
            boxes = tf.identity(boxes)

        def crops_of(start, end):
            part = boxes[start:end]
            cut = tf.map_fn(
                lambda region: self._crop_part(*part_of(image, region, self._input_size), region),
                geometry.region_of(part, self._padding, self._aspect),
                fn_output_signature=tf.TensorSpec((*self._input_size, 3), tf.uint8),
                parallel_iterations=DECODED_AT_ONCE,
            )
            return cut, inside(tf.shape(image)[:2], part)

        return self._answer(crops_of, boxes)

    def _answer(self, crops_of, boxes):
        """Returns the network's predictions for boxes [N, 4], in batches of `CHUNK` crops.

        Args:
            crops_of: function of (start, end) -> crops [n, H, W, 3] uint8 of boxes[start:end], and
                [n] bool: whether the box contains a pixel of its image.
            boxes: [N, 4] float32 xywh.
        """
        count = tf.shape(boxes)[0]
        joints = self._joints
        found = [tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False) for _ in range(2)]

        def body(start, chunk, *arrays):
            end = tf.minimum(start + CHUNK, count)
            with tf.device("/CPU:0"):
                crops, inside = crops_of(start, end)
            regions = geometry.region_of(boxes[start:end], self._padding, self._aspect)
            keypoints, scores = self._predict(crops, regions)
            known = tf.cast(inside, tf.float32)
            keypoints = tf.concat([keypoints[..., :2], keypoints[..., 2:] * known[:, None, None]], -1)
            parts = keypoints, scores * known
            return [end, chunk + 1, *(a.write(chunk, part) for a, part in zip(arrays, parts, strict=True))]

        start = [tf.constant(0), tf.constant(0), *found]
        *_, keypoints, scores = tf.while_loop(lambda start, *_: start < count, body, start, parallel_iterations=1)
        # An empty TensorArray cannot be concatenated.
        keypoints = tf.cond(count > 0, keypoints.concat, lambda: tf.zeros([0, joints, 3]))
        scores = tf.cond(count > 0, scores.concat, lambda: tf.zeros([0]))
        answer = {"keypoints": tf.ensure_shape(keypoints, [None, joints, 3]), "scores": tf.ensure_shape(scores, [None])}
        return _finite(answer, "boxes")


def _finite(answer, what):
    """Returns an answer; fails at the first item that is not finite. `what` is the name of the items."""
    with tf.device("/CPU:0"):
        checks = [check_finite(value, what, NO_ANSWER) for value in answer.values()]
    with tf.control_dependencies(checks):
        return {name: tf.identity(value) for name, value in answer.items()}
