"""The recipes of kpose, one file each. A docstring gives the paper, expected score, time and command."""
