"""A module of instructions made machine code, for the CPU that we are on."""

from __future__ import annotations

import ctypes
import threading
from functools import lru_cache
from typing import TYPE_CHECKING

import llvmlite.binding as llvm
from llvmlite import ir

from inference.engines.jit.dots import best_dots
from inference.engines.jit.program import emit_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference.engines.jit.dots import Dots
    from inference.engines.jit.program import Plan

__all__ = ["Compiled", "compiled", "cpu_dots"]

_SPEED_LEVEL = 2
_ONE_AT_A_TIME = threading.Lock()


def cpu_dots() -> Dots | None:
    """Return the instructions that steps are made of on this CPU; None: it has none of them."""
    return best_dots(llvm.get_host_cpu_features())


@lru_cache(maxsize=4)
def compiled(plan: Plan) -> Compiled:
    """Return the machine code of a step; that of the last few plans is kept."""
    module = ir.Module("step")
    emit_step(module, plan)
    return Compiled(module)


class Compiled:
    """Machine code; it lives as long as this does.

    Args:
        module: to compile. Cost: about a second for a model's step.
    """

    def __init__(self, module: ir.Module) -> None:
        with _ONE_AT_A_TIME:
            llvm.initialize_native_target()
            llvm.initialize_native_asmprinter()
            target = llvm.Target.from_default_triple().create_target_machine(
                cpu=llvm.get_host_cpu_name(),
                features=llvm.get_host_cpu_features().flatten(),
                opt=_SPEED_LEVEL,
            )
            parsed = llvm.parse_assembly(str(module))
            parsed.verify()
            builder = llvm.create_pass_builder(
                target, llvm.create_pipeline_tuning_options(speed_level=_SPEED_LEVEL)
            )
            builder.getModulePassManager().run(parsed, builder)
            self._engine = llvm.create_mcjit_compiler(parsed, target)
            self._engine.finalize_object()

    def step(self) -> Callable[[int, int], None]:
        """Return `step(arguments, thread)`; it is called without the interpreter's lock."""
        return self._function("step", 2)

    def help(self) -> Callable[[int, int, int], None]:
        """Return `help(arguments, thread, event)`, likewise."""
        return self._function("help", 3)

    def _function(self, name: str, arguments: int) -> Callable[..., None]:
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * arguments)
        return kind(self._engine.get_function_address(name))
