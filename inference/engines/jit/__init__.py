"""A whole step of a model on a CPU, compiled when the model is loaded, for this very CPU.

`emit` writes instructions, `products` multiplies packed matrices, `attention` and `rows` do the
rest of a block, `program` makes a step of them, for threads that wait as in `waiting`, `compiled`
makes it machine code, `team` runs it, and `model` is what the engine sees.
"""
