"""The recipes that kpose ships: one readable file each, with the paper, the time it takes and the exact command."""
