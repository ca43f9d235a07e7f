"""Human keypoint regression in Keras: COCO keypoints in, a SavedModel that TF Serving loads out."""

import time

__version__ = "0.1.0"

# Where a command begins, for the time that it took to its first step.
STARTED = time.monotonic()


def load(source=None):
    """A `kpose.predict.model.Model`: an exported one by its folder, one that kpose ships by its name, or the default."""
    # TensorFlow takes seconds to import, and most of kpose's commands say their help without it.
    from kpose.core import startup

    startup.import_tensorflow()
    from kpose.predict.model import Model

    return Model(source)
