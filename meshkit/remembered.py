"""Reading the same bytes again and again: what was read is remembered, if it is small. PURE.

Few callers and kinds of findings, many events: to find a value by its bytes takes a quarter of the
time of reading it. What comes from the wire may be of any size, so large values are read each time.
"""

from __future__ import annotations

from functools import lru_cache, wraps
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["remembered"]

_Ts = TypeVarTuple("_Ts")
_T = TypeVar("_T")
_VALUES_MAX, _BYTES_MAX = 1_024, 1_024


def remembered(read: Callable[[*_Ts], _T]) -> Callable[[*_Ts], _T]:
    """Remember what a function of hashable, positional, sized arguments returned lately.

    1,024 values at most, and none that has an argument longer than 1,024 bytes or characters.
    """
    kept = lru_cache(maxsize=_VALUES_MAX)(read)

    @wraps(read)
    def found(*given: *_Ts) -> _T:
        for each in given:
            if len(each) > _BYTES_MAX:  # type: ignore[arg-type] # sized, see above
                return read(*given)
        return kept(*given)

    return found
