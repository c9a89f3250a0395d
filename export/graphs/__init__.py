"""From a trained network to a bundle: its graph as ONNX, one module a family."""
