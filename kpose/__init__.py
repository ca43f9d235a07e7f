"""Human keypoint regression in Keras: COCO keypoints in, a SavedModel for TF Serving out."""

__version__ = "0.1.0"


def load(source=None):
    """Returns a `kpose.predict.model.Model`.

    Args:
        source: folder of an exported model, or the name of a shipped model. None: the default
            shipped model.

    Raises:
        InputError: the model does not exist.
    """
    # Imported here, because TensorFlow takes seconds to import and --help does not need it.
    from kpose.core import startup

    startup.import_tensorflow()
    from kpose.predict.model import Model

    return Model(source)
