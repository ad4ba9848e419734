"""Which programs may share a process with the next one: those whose code can touch nothing but its own objects.

Judged from the compiled code, never from a run: the names that it looks up, the modules that it imports, three kinds
of instruction. Nearly everything a code model writes for a benchmark is harmless; everything else gets a process of
its own, which costs a millisecond or two and changes no verdict.

Each rule closes a way to leave something behind in the interpreter:
- names that begin with an underscore lead from any object to its class, its globals, the interpreter;
- `getattr` and its kin do the same with strings, as do class patterns (`case x(name=y)`), whose attribute names are
  strings;
- assigning to an attribute could change a module or a library's class (`math.pi = 3`);
- a few library functions assign attributes or register classes on behalf of their caller;
- frames, generators and tracebacks lead to our own frames;
- `type` called with three arguments makes classes with any method, such as ones that the garbage collector calls later.
"""

from __future__ import annotations

import opcode
import sys
from types import CodeType


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Pure or as good as pure: no state that a program could change by calling them, apart from `random`, which is seeded
# before each program. (`copy` calls methods with unlimited powers; `decimal` has a context; `json` has tables.)
SAFE_MODULES = _words(
    """
    __future__ bisect cmath collections datetime fractions functools hashlib heapq itertools math operator random re
    statistics string typing
    """
)
_BUILT_IN = _words(
    "breakpoint compile delattr eval exec getattr globals help input locals memoryview open setattr type vars"
)
# Assign attributes, register classes or look up names on behalf of their caller; or are mutable and shared.
_IN_LIBRARIES = _words(
    """
    attrgetter methodcaller update_wrapper wraps total_ordering register Formatter get_field get_type_hints ForwardRef
    runtime_checkable no_type_check overload final SystemRandom
    all_feature_names dispatch_table EXCLUDED_ATTRIBUTES algorithms_available algorithms_guaranteed
    """
)
_FRAMES_AND_CODE = _words(
    """
    gi_frame gi_code gi_yieldfrom cr_frame cr_code cr_await cr_origin ag_frame ag_code ag_await tb_frame tb_next
    f_back f_builtins f_code f_globals f_locals f_trace f_lineno
    """
)
# Other modules that the safe ones have among their public names, in any of the Pythons that we run on.
_MODULES_IN_REACH = _words("contextlib copyreg enum numbers sys types warnings")
POWERFUL_NAMES = _BUILT_IN | _IN_LIBRARIES | _FRAMES_AND_CODE | _MODULES_IN_REACH
_HARMLESS_UNDERSCORES = _words(
    """
    _ __init__ __name__ __module__ __qualname__ __doc__ __len__ __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __hash__
    __repr__ __str__ __iter__ __next__ __getitem__ __setitem__ __contains__ __call__ __bool__ __add__ __sub__ __mul__
    __classcell__ __firstlineno__ __static_attributes__
    """
)
_POWERFUL_INSTRUCTIONS = tuple(opcode.opmap[name] for name in ("STORE_ATTR", "DELETE_ATTR", "MATCH_CLASS"))
_IMPORT, _EXTENDED_ARGUMENT = opcode.opmap["IMPORT_NAME"], opcode.opmap["EXTENDED_ARG"]


def harmless(code: CodeType) -> bool:
    """Whether a compiled program, and every function and class in it, keeps to itself."""
    for name in code.co_names:
        if name in POWERFUL_NAMES or (name[0] == "_" and name not in _HARMLESS_UNDERSCORES):
            return False
    instructions = code.co_code[::2]
    if any(instruction in instructions for instruction in _POWERFUL_INSTRUCTIONS):
        return False
    if _IMPORT in instructions and not _imports_are_safe(code):
        return False
    return all(harmless(part) for part in code.co_consts if isinstance(part, CodeType))


def _imports_are_safe(code: CodeType) -> bool:
    argument = 0
    raw = code.co_code
    for position in range(0, len(raw), 2):
        argument = argument << 8 | raw[position + 1]
        if raw[position] == _IMPORT:
            root = code.co_names[argument].partition(".")[0]
            # A module that is not in the standard library does not exist in the jail: its import just fails.
            if root not in SAFE_MODULES and root in sys.stdlib_module_names:
                return False
        if raw[position] != _EXTENDED_ARGUMENT:
            argument = 0
    return True
