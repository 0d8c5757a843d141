"""Programmatic dependent launch, where this Triton has it."""

import triton

try:
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
except ImportError:  # a build of Triton without the CUDA part

    @triton.jit
    def gdc_wait():
        """Nothing to wait for."""

    @triton.jit
    def gdc_launch_dependents():
        """Nothing to launch."""


__all__ = ["gdc_launch_dependents", "gdc_wait"]
