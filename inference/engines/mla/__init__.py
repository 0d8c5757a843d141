"""DeepSeek-V3's shape on a CPU: latent attention and a mixture of experts.

shape    sizes, and how positions turn (YaRN)
weights  tensors as transformers names them
experts  which experts a token goes to, and what they make of it
model    the forward pass over slots, with keys and values kept as latents

Checked against transformers at toy size with random weights; nobody has run the real model here.
"""
