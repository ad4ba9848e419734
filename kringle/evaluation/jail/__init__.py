"""Running programs that nobody has read: in a jail, judged by tests that they cannot reach.

The programs come from a model that we trained: mostly accidents (endless loops, all the memory, floods of output), sometimes
shortcuts past the tests, hardly ever an attack. All three get the same treatment.

| threat | stands against it |
|---|---|
| reading the host's files | a root of its own, with the interpreter and the system's libraries, read-only; Landlock |
| writing outside | the same; /tmp is a small file system in memory, and a jail that was written to is thrown away |
| the network | an empty network namespace; no sockets (seccomp) |
| signals to, tracing of, reading of other processes | process namespace, no capabilities, seccomp, no /proc, undumpable processes |
| new processes: fork bombs, daemons, executing files | seccomp; what is left dies with the namespace's first process |
| memory, CPU time, output, disk | limits of each process, checked from outside by its CPU clock; control groups; a drained pipe |
| privileges | an ordinary user in a user namespace, no_new_privs, no capabilities, never root outside |
| the next program's verdict | only harmless programs share a process, its interpreter is compared after each (`inside/screen.py`, `warm.py`) |
| passing without solving: early exit, patched comparisons, frames, memory, forged reports, late threads | a pass needs the tests to reach their end in a process that the program never was in (`inside/referee.py`) |
| the machine's load deciding a verdict | CPU time, and a run alone for whatever came near a limit (`verdicts.py`) |

Not covered: faults of the kernel (use a virtual machine for programs that somebody wrote to attack), side channels of the
processor, wear of the processor and memory bandwidth by thirty seconds of work; tests that are too weak (a program that returns what
the tests happen to ask for has passed them); tests that must share an interpreter with the program (see `inside/referee.py`).
macOS has none of these layers: programs run there only with `unsafe`, and then nothing of the first seven rows holds.

`probe` says what this machine can do, `runner` judges programs, `attack` tries to break out.
"""

from kringle.evaluation.jail.levels import JailReport, Layer, Level, probe
from kringle.evaluation.jail.verdicts import Kind, Limits, Verdict

__all__ = ["JailReport", "Kind", "Layer", "Level", "Limits", "Verdict", "probe"]
