"""What is exported: photographs and boxes in, keypoints in original pixels out, in one graph.

The graph is asked by strangers. Whatever they send ends in an answer or in one InvalidArgument error that says what is
wrong and, but for what only the decoders see, with which item; never in a crash, and never in more memory than
`MAX_PIXELS`, `MAX_SIDE` and `CHUNK` allow:

    bytes that are no JPEG or PNG, are cut short, or announce too many pixels      error, with the item's number
    a JPEG that is damaged inside                                                  what can be decoded of it is used
    a PNG that is damaged behind its header, a JPEG with a damaged header          error of the decoder without a number
    a box with a NaN, an infinity, a number beyond `FARTHEST`, no width or height  error, with the item's number
    a box without any pixel of its image                                           answered, with scores of 0
    other numbers of boxes than of images                                          error
"""

import functools

import tensorflow as tf

from kpose.core import geometry
from kpose.data import resampling
from kpose.export.requests import check_boxes, check_pixels, decode, decode_part, inside, same_number
from kpose.models import decoding

DECODED_AT_ONCE = 4
# So many crops go through the network together; more boxes take longer, not more memory.
CHUNK = 64


class KeypointServer(tf.Module):
    """The signatures of an exported model.

    Args:
        network: the trained network.
        skeleton: its `Skeleton`.
        input_size: (height, width) of its input.
        padding: the network sees the box enlarged by this factor.
        flip_test: average each answer with that for the mirror image.
        aspect: it sees the rectangle of this width over height round the box; 0: the box itself.
    """

    def __init__(self, network, skeleton, input_size, padding, flip_test=False, aspect=0.0):
        super().__init__(name="kpose")
        # TensorFlow's variables instead of Keras' round them: of those, a SavedModel holds copies beside what the graph
        # reads, and only Python's loader, not TF Serving's, restores both.
        self.variables_of_network = [variable.value for variable in network.variables]
        self._predict = functools.partial(decoding.predict, network, skeleton=skeleton, flip_test=flip_test)
        self._joints = skeleton.num_joints
        self._input_size = tuple(input_size)
        self._padding = padding
        self._aspect = aspect

    @property
    def signatures(self):
        """name -> function, for `tf.saved_model.save`."""
        crops = tf.TensorSpec([None, *self._input_size, 3], tf.float32, name="images")
        return {
            "serving_default": self.serve,
            "serving_people": self.serve_people,
            "serving_pixels": self.serve_pixels,
            "serving_images": self.serve_images.get_concrete_function(crops),
        }

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
        with tf.device("/CPU:0"), tf.control_dependencies([same_number(image_bytes, boxes), *check_boxes(boxes)]):
            files = tf.identity(image_bytes)

        def crops_of(start, end):
            return tf.map_fn(
                lambda item: self._crop(*item),
                (tf.range(start, end), files[start:end], boxes[start:end]),
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
        """Many persons of one image, which is decoded once.

        Args:
            image_bytes: [1] a JPEG or PNG file.
            boxes: [N, 4] the persons' boxes, xywh in its pixels.

        Returns:
            As `serve`.
        """
        with tf.device("/CPU:0"), tf.control_dependencies(check_boxes(boxes)):
            image = decode(tf.constant(0), image_bytes[0])
        return self._answer_people(image, boxes)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, 3], tf.uint8, name="image"),
            tf.TensorSpec([None, 4], tf.float32, name="boxes"),
        ],
        autograph=False,
    )
    def serve_pixels(self, image, boxes):
        """Many persons of one photograph that was decoded elsewhere.

        Args:
            image: [H, W, 3] uint8, RGB.
            boxes: [N, 4] the persons' boxes, xywh in its pixels.

        Returns:
            As `serve`.
        """
        with tf.device("/CPU:0"), tf.control_dependencies([*check_boxes(boxes), *check_pixels(image)]):
            image = tf.identity(image)
        return self._answer_people(image, boxes)

    @tf.function(autograph=False)
    def serve_images(self, images):
        """Crops that were cut elsewhere.

        Args:
            images: [N, H, W, 3] float32 of 0..255, at the network's size.

        Returns:
            keypoints [N, K, 3] float32: x, y in pixels of the crop, the joint's score; scores [N] float32.
        """
        height, width = self._input_size
        regions = tf.repeat(tf.constant([[0.0, 0.0, width, height]]), tf.shape(images)[0], axis=0)
        keypoints, scores = self._predict(images, regions)
        return {"keypoints": keypoints, "scores": scores}

    def _crop(self, index, image_bytes, box):
        region = geometry.region_of(box[None], self._padding, self._aspect)[0]
        part, corner, sides = decode_part(index, image_bytes, region, self._input_size)
        crop = resampling.crop_image(part, region - tf.pad(corner, [[0, 2]]), self._input_size)
        return crop, inside(sides, box[None])[0]

    def _answer_people(self, image, boxes):
        """The network's answer for boxes in one image [H, W, 3] uint8."""

        def crops_of(start, end):
            part = boxes[start:end]
            cut = tf.map_fn(
                lambda region: resampling.crop_image(image, region, self._input_size),
                geometry.region_of(part, self._padding, self._aspect),
                fn_output_signature=tf.TensorSpec((*self._input_size, 3), tf.uint8),
                parallel_iterations=DECODED_AT_ONCE,
            )
            return cut, inside(tf.shape(image)[:2], part)

        return self._answer(crops_of, boxes)

    def _answer(self, crops_of, boxes):
        """The network's answer for all boxes, `CHUNK` crops at a time."""
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
        # Of no boxes there is nothing to join.
        keypoints = tf.cond(count > 0, keypoints.concat, lambda: tf.zeros([0, joints, 3]))
        scores = tf.cond(count > 0, scores.concat, lambda: tf.zeros([0]))
        return {"keypoints": tf.ensure_shape(keypoints, [None, joints, 3]), "scores": tf.ensure_shape(scores, [None])}
