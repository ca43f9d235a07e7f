"""Compares recipes with the same budget: python -m kpose.compare."""
