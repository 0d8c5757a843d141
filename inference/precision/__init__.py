"""Variants of a model: other precisions, fewer weights, fewer layers; and what each of them costs.

Where to look:

    source    a registered model's tensors, whatever file they come from
    network   the forward pass to train and to measure with: plain, differentiable, on any device
    schemes   the precisions, and who computes them
    files     a variant on disk: safetensors, config.json, tokenizer.json
    corpus    text, split once and for all into what trains and what measures
    training  the loop that pruning and distillation share: resumable, seeded
    measure   perplexity, agreement, divergence, speed, memory
    report    a table, a file for programs, a picture

Serving needs none of it but `files`, which reads a variant's codes without torchao.
"""
