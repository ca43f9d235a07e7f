"""Exports trained runs: python -m kpose.export and python -m kpose.export.shipped_model."""
