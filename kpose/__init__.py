"""Human keypoint regression in Keras: COCO keypoints in, a SavedModel for TF Serving out."""

__version__ = "0.1.0"


def load(source=None, detector="auto", min_score=None):
    """Returns a `kpose.predict.model.Model`: `kpose.load().predict("photo.jpg")` finds the people.

    Args:
        source: a .tflite or .onnx file, the folder of an exported model, the folder of a run, or the
            name of a shipped model, or "fast" or "best". None: the default shipped model, "fast".
        detector: finds the persons: a name (see `kpose.predict.detectors.NAMES`), or a function of an
            image that returns their boxes and scores.
        min_score: persons with a lower score of the detector are left out; None: the detector's own
            default.

    Raises:
        InputError: the model does not exist or cannot be used, or the detector is not for its joints.
            A detector that does not exist is an error of the first prediction.
    """
    # Imported here, because NumPy and Pillow take a while to import, and the version needs neither.
    from kpose.predict.model import Model

    return Model(source, detector, min_score)


def draw(image, people, float_max=None):
    """Returns a PIL image: an image with the boxes, the scores and the skeletons of its people.

    Args:
        image: one image: a path, a URL, bytes, a PIL image or an array (see
            `kpose.predict.inputs.gather`).
        people: the `People` that a model found in it.
        float_max: the value of white in an array of floats, 1 or 255; None: floats are refused.

    Raises:
        InputError: the image cannot be read or has another size.
    """
    from kpose.predict import people as people_lib

    return people_lib.draw(image, people, float_max)
