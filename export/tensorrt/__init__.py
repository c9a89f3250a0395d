"""TensorRT: graphs compiled to engines, and engines run on the GPU."""
