"""What a training leaves in its folder, its checkpoints, and the models that kpose ships."""
