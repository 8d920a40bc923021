"""Networks of ONNX files as Keras networks, layer for layer."""
