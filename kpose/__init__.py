"""Human keypoint regression in Keras: COCO keypoints in, a SavedModel for TF Serving out."""

__version__ = "0.1.0"


def load(source=None):
    """Returns a `kpose.predict.model.Model`.

    Args:
        source: a .tflite or .onnx file, the folder of an exported model, the folder of a run, or the
            name of a shipped model. None: the default shipped model.

    Raises:
        InputError: the model does not exist or cannot be used.
    """
    # Imported here, because NumPy and Pillow take a while to import, and the version needs neither.
    from kpose.predict.model import Model

    return Model(source)
