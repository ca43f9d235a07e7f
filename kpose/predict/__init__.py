"""Predicts keypoints for images and videos: python -m kpose.predict."""
