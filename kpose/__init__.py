"""Human keypoint regression in Keras: COCO keypoints in, a SavedModel that TF Serving loads out."""

import time

__version__ = "0.1.0"

# Where a command begins, for the time that it took to its first step.
STARTED = time.monotonic()
