"""What runs models: the protocol (`base`), PyTorch on a CPU (`torch`), a load source (`null`)."""
