"""Measurements of speed beside baselines: python -m kpose.benchmark."""
