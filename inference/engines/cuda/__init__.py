"""The forward pass on an NVIDIA GPU: Triton kernels, CUDA graphs, sampling on the device.

kernels   what runs on the device
device    weights in the layout that the kernels read
graphs    how work is captured
products  matrix products in bf16 or fp8, and what is fused with them
decode    one token for every running request: a captured graph per number of rows
prefill   whole prompts and chunks of them, several at once
runner    both behind the engine's thread: queue a step, read its tokens one step behind
"""
