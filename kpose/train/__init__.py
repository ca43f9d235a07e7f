"""The training of a recipe: python -m kpose.train."""
