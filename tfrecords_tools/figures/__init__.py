"""Synthetic images of people as a COCO data set: python -m tfrecords_tools.figures."""
