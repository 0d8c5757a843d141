"""The way to TensorRT: models as ONNX graphs, plans built from them, engines for both."""
