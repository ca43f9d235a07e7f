"""The files of a training run, its checkpoints, and the models that kpose ships."""
