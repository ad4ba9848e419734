"""Running programs that nobody has read: in a jail, judged by tests that they cannot reach.

The programs come from a model that we trained: mostly accidents (endless loops, all the memory, floods of output),
sometimes shortcuts past the tests, hardly ever an attack. All three get the same treatment.

| threat | stands against it |
|---|---|
| reading the host's files | a root of its own: the interpreter and the system's libraries, read-only; Landlock |
| writing outside | the same; /tmp is a small file system in memory, and a jail that was written to is thrown away |
| the network | an empty network namespace; no sockets (seccomp) |
| signals to, tracing and reading of other processes | process namespace, seccomp, no /proc, undumpable processes |
| new processes: fork bombs, daemons, executing | seccomp; what is left dies with the namespace's first process |
| memory, CPU time, output, disk | limits of each process, its CPU clock read from outside; control groups |
| privileges | an ordinary user in a user namespace, no_new_privs, no capabilities, never root outside |
| the next program's verdict | only harmless programs share a process, which is compared after each (`inside/warm.py`) |
| passing without solving: early exit, patched comparisons, frames, forged reports, threads | a pass needs the tests \
to reach their end in a process that the program never was in (`inside/referee.py`) |
| the machine's load deciding a verdict | CPU time; a run alone for whatever came near a limit (`verdicts.py`) |

Not covered: faults of the kernel (use a virtual machine for programs that somebody wrote to attack); side channels of
the processor; slowing the machine down within the limits; tests that are too weak (what returns all that the tests ask
for has passed them); tests that must share an interpreter with the program (`inside/referee.py` says which).
macOS has none of these layers: programs run there only with `unsafe`, and then nothing but the last three rows holds.

`probe` says what this machine can do, `runner` judges programs, `attack` tries to break out.
"""

from kringle.evaluation.jail.levels import JailReport, Layer, Level, probe
from kringle.evaluation.jail.verdicts import Kind, Limits, Verdict

__all__ = ["JailReport", "Kind", "Layer", "Level", "Limits", "Verdict", "probe"]
