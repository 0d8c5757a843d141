"""Model repositories for NVIDIA Triton, made from manifests, and the model in them that runs us."""
