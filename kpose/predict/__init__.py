"""Keypoints of people in images and videos: python -m kpose.predict."""
