"""Augmentation of training batches, on the host or on the device."""
