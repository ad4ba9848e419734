"""What the process that workers are forked from has ready, so that each of them need not make it: imported, never used.

numba's tables of types and functions take an eighth of a second to fill, at the first call of any kernel.
"""

from numba.core.registry import cpu_target

cpu_target.typing_context.refresh()
cpu_target.target_context.refresh()
