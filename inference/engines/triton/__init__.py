"""Models that NVIDIA Triton runs, asked over gRPC."""
