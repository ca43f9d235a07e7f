"""Human keypoint regression in Keras: COCO keypoints in, a SavedModel that TF Serving loads out."""

__version__ = "0.1.0"
