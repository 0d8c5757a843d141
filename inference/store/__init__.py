"""Models on disk: what each is, whether it is whole and signed, and how it comes and goes.

manifest      what is known of a model before a byte of it is read (PURE)
signing       whose word that is (PURE)
sealing       files encrypted at rest, chunk by chunk
formats       whether a file is what its name says, without a parser that could be led astray
below         files opened under a folder, and nowhere else
store         the folder: list, open
adding        how a model comes into it: a folder, a file, an archive
checking      every digest and signature again
warm          the first prompts of an engine, and whether it answers the same twice
"""
