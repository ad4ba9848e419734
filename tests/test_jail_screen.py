"""Which programs share a process, and what is noticed if one of them changes it after all."""

from __future__ import annotations

import json
import subprocess
import sys
import types
import warnings
from importlib import import_module
from pathlib import Path

import pytest

from kringle.evaluation.jail.attack import shipped_attacks
from kringle.evaluation.jail.inside import screen

JAIL = Path(screen.__file__).parent.parent
HARMLESS = {
    "recursion": "def f(n):\n    return 1 if n == 0 else n * f(n - 1)\n",
    "imports": "import math, re\nfrom typing import List, Optional\nfrom collections import Counter, defaultdict\n",
    "absent module": "import numpy as np\ndef f(x):\n    return np.array(x)\n",
    "class": "class Stack:\n    def __init__(self):\n        super().__init__()\n",
    "comprehension": "def f(xs):\n    return sorted({x.strip().lower() for x in xs if isinstance(x, str)}, key=len)\n",
    "generator": "def f(n):\n    a, b = 0, 1\n    while True:\n        yield a\n        a, b = b, a + b\n",
    "exceptions": "try:\n    int('x')\nexcept (ValueError, TypeError) as error:\n    raise KeyError from error\n",
    "copies": "def f(x):\n    return x.copy()\n",
}
POWERFUL = {
    "class of an object": "x = ().__class__",
    "by string": "x = getattr((), '__cla' + 'ss__')",
    "by pattern": "match (i for i in ''):\n    case object(gi_frame=f): pass",
    "nested": "def f():\n    def g():\n        return [lambda: (1).__class__ for _ in 'a']\n",
    "attribute of a module": "import math\nmath.pi = 3",
    "deleted attribute": "import math\ndel math.pi",
    "a module's module": "import collections.abc\nx = collections.abc.sys",
    "from a module": "from typing import sys",
    "import in a function": "def f():\n    import os",
    "submodule": "import os.path",
    "three-argument type": "x = type('X', (), {})",
    "private": "import random\nrandom._inst = None",
    "many names": "\n".join(f"x{number} = 0" for number in range(300)) + "\nimport gc",
    "special method": "class X:\n    def __del__(self): pass",
    "open": "open('/tmp/x')",
    "decorator that assigns": "import functools, math\nfunctools.wraps(max)(math)",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless(name: str) -> None:
    assert screen.harmless(compile(HARMLESS[name], "x", "exec"))


@pytest.mark.parametrize("name", POWERFUL)
def test_powerful(name: str) -> None:
    assert not screen.harmless(compile(POWERFUL[name], "x", "exec"))


def test_no_attack_on_the_next_program_is_harmless() -> None:
    attacks = shipped_attacks()
    neighbours = [one for one in attacks if (one.kind, one.language) == ("neighbours", "python")]
    allowed = {one.name for one in neighbours if screen.harmless(compile(one.program, "x", "exec"))}
    # Its generator ends in a loop without end, within its own time, and has no power to change anything.
    assert allowed == {"a generator that ends later"}
    assert len(neighbours) > 20


def test_no_shared_mutable_value_can_be_named() -> None:
    """Every public name that leads from the safe modules to something that could be changed in place."""
    found, seen = [], set()

    def look(holder: object, path: str) -> None:
        for name in dir(holder):
            if name.startswith("_") or name in screen.POWERFUL_NAMES:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                value = getattr(holder, name, None)
            if isinstance(value, dict | list | set | bytearray):
                found.append(f"{path}.{name}")
            elif isinstance(value, type | types.ModuleType) and id(value) not in seen:
                seen.add(id(value))
                if isinstance(value, types.ModuleType) and value.__name__.split(".")[0] not in screen.SAFE_MODULES:
                    found.append(f"{path}.{name}")
                look(value, f"{path}.{name}")

    for module in sorted(screen.SAFE_MODULES):
        look(import_module(module), module)
    assert not found


CHANGES = {
    "nothing": "x = 1",
    "builtins": "import builtins; builtins.sorted = None",
    "equal to everything": "import math\nclass Y:\n    def __eq__(self, o): return True\nmath.pi = Y()",
    "new name": "import math; math.new = 1",
    "module": "import wave",
    "path": "import sys; sys.path.append('/tmp')",
    "descriptor": "import os; os.dup(0)",
    "thread": "import threading, time; threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
    "trace": "import sys; sys.settrace(lambda *_: None)",
    "collector": "import gc; gc.disable()",
    "output": "import sys; sys.stdout = None",
    "handler": "import signal; signal.signal(signal.SIGPROF, signal.SIG_IGN)",
    "folder": "import os; os.chdir('/usr')",
}


def test_the_fingerprint_sees_changes() -> None:
    """Each change in a process of its own, because each is a change for good."""
    script = (
        "import sys, os, json, signal, threading, gc, builtins, math, time\n"
        f"sys.path.append({str(JAIL)!r})\n"
        "from inside.warm import Fingerprint\n"
        f"changes = {CHANGES!r}\n"
        "seen = {}\n"
        "for name, change in changes.items():\n"
        "    reader, writer = os.pipe()\n"
        "    if os.fork() == 0:\n"
        "        try:\n"
        "            fingerprint = Fingerprint()\n"
        "            exec(change, {})\n"
        "            os.write(writer, b'1' if fingerprint.changed() else b'0')\n"
        "        finally:\n"
        "            os._exit(0)\n"
        "    os.close(writer)\n"
        "    seen[name] = os.read(reader, 1).decode()\n"
        "print(json.dumps(seen))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {name: "0" if name == "nothing" else "1" for name in CHANGES}
