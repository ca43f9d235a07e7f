"""Training of a recipe: python -m kpose.train."""
