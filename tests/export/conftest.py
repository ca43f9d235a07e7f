"""The exported model that several tests share."""

import os

import pytest
import tensorflow as tf


@pytest.fixture(scope="session")
def exported(model_dir):
    """The SavedModel of the tiny run, loaded."""
    return tf.saved_model.load(os.path.join(model_dir, "1"))
