"""A trained run as a SavedModel, a TensorFlow Lite or an ONNX file: python -m kpose.export."""
