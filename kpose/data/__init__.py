"""Records, training sets and the input pipeline."""
