"""Metrics of a trained run or of detections: python -m kpose.evaluate."""
