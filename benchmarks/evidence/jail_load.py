"""The same verdict file at 1 and 16 workers, beside eight times as many busy processes as cores, and as another user.

    make evidence jail_load

Programs of every kind of verdict, in the languages that this machine can run, some of them close to a limit. Files are
compared byte for byte, times and memory aside. As root, a fresh account is made for the last run and removed again;
an ordinary user skips that, and says so. Writes benchmarks/results/jail_load.json.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

from kringle.engine import default_workers
from kringle.evaluation.jail.runner import missing_runtime

TIMES = ("cpu_ms", "wall_ms", "peak_kb")
ACCOUNT = "kringle-evidence"
SLOW = "    import time\n    while time.process_time() < {}: pass\n    return n + 1\n"
PROGRAMS = {
    "starter": [
        "    return n + 1\n",
        "    return n - 1\n",
        "    return (n\n",
        "    while True: pass\n",
        "    import time; time.sleep(99)\n",
        "    return [0] * 10**10\n",
        "    import os; os._exit(0)\n",
        "    print('x' * 10**8); return n + 1\n",
        "    class Yes:\n        __eq__ = lambda *_: True\n    return Yes()\n",
        "    import os; return os.getpid() and n + 1\n",
        *(SLOW.format(seconds) for seconds in (0.2, 0.35, 0.6, 1.2)),
        *(f"    return n + {number}\n" for number in range(2, 60)),
    ],
    "starter-js": [
        "    return n + 1;\n}\n",
        "    return n - 1;\n}\n",
        "    return n +;\n}\n",
        "    for (;;);\n}\n",
        "    process.exit(0);\n}\n",
        "    return n + 1;\n}\nreturn;\n",
        "    const all = []; for (;;) all.push(Buffer.alloc(1 << 22, 1));\n}\n",
        *(f"    return n + {number};\n}}\n" for number in range(2, 30)),
    ],
    "starter-java": [
        "        return n + 1;\n",
        "        return n - 1;\n",
        "        return n +;\n",
        "        while (true) n++;\n",
        "        System.exit(0); return 0;\n",
        "        List<long[]> all = new ArrayList<>(); while (true) all.add(new long[1 << 18]);\n",
        *(f"        return n + {number};\n" for number in range(2, 12)),
    ],
}


def main() -> None:
    compared: dict[str, dict[str, Any]] = {}
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for suite, texts in PROGRAMS.items():
            language = {"starter-js": "javascript", "starter-java": "java"}.get(suite, "python")
            if why := missing_runtime(language):
                left_out.append(why)
                continue
            samples = folder / f"{suite}.jsonl"
            samples.write_text(
                "".join(json.dumps({"task_id": "starter/0", "completion": text}) + "\n" for text in texts)
            )
            runs = {
                "1 worker": score(samples, suite, folder / "one.jsonl", 1),
                "16 workers": score(samples, suite, folder / "many.jsonl", 16),
                "eight times overloaded": overloaded(samples, suite, folder / "load.jsonl"),
            }
            other, why = as_another_user(samples, suite)
            if other is None:
                left_out.append(f"{suite}: {why}")
            else:
                runs["fresh account"] = other
            lines = {run: text.splitlines() for run, text in runs.items()}
            first = lines["1 worker"]
            differing = [
                {"run": run, "first": a, "other": b}
                for run, rows in lines.items()
                for a, b in zip(first, rows, strict=True)
                if a != b
            ]
            compared[suite] = {"samples": len(texts), "runs": list(runs), "differing": differing}
            print(suite, len(texts), "samples,", ", ".join(runs), f": {len(differing)} lines differ", flush=True)
    print(*left_out, sep="\n")
    print(common.write("jail_load", {"cores": default_workers(), "suites": compared, "left_out": left_out}))
    if any(one["differing"] for one in compared.values()):
        raise SystemExit(1)


def score(samples: Path, suite: str, out: Path, workers: int, user: str | None = None) -> str:
    """The verdict file without what differs from run to run."""
    interpreter, environment = sys.executable, os.environ | {"PYTHONPATH": str(common.ROOT)}
    groups: dict[str, Any] = {}
    if user is not None:
        interpreter = _interpreter_for(user)
        packages = [folder for folder in sys.path if folder.endswith("site-packages")]
        environment |= {"PYTHONPATH": os.pathsep.join([str(common.ROOT), *packages]), "HOME": f"/home/{user}"}
        environment.pop("XDG_CACHE_HOME", None)
        groups = {"user": user, "group": user, "extra_groups": []}
    command = [interpreter, "-m", "kringle", "score", str(samples), "--suite", suite, "--workers", str(workers)]
    subprocess.run(
        [*command, "--out", str(out)], env=environment, cwd="/", check=True, stdout=subprocess.DEVNULL, **groups
    )
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return "".join(json.dumps({k: v for k, v in row.items() if k not in TIMES}) + "\n" for row in rows)


def overloaded(samples: Path, suite: str, out: Path) -> str:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(8 * default_workers())]
    try:
        time.sleep(0.5)
        return score(samples, suite, out, default_workers())
    finally:
        for process in busy:
            process.kill()
            process.wait()


def _interpreter_for(user: str) -> str:
    """A Python that another user can run: this one, or the system's of the same version."""
    for candidate in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            subprocess.run([candidate, "-c", ""], user=user, cwd="/", capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    raise PermissionError(f"{sys.executable} belongs to one user alone")


def as_another_user(samples: Path, suite: str) -> tuple[str | None, str]:
    """(The result of a run in an account that was just made, ""), or (None, the reason why that cannot be)."""
    if os.getuid() != 0 or shutil.which("useradd") is None:
        return None, "no fresh account: only root can make one"
    subprocess.run(["useradd", "--create-home", ACCOUNT], check=True, capture_output=True)
    try:
        place = Path(f"/home/{ACCOUNT}/out.jsonl")
        return score(samples, suite, place, default_workers(), user=ACCOUNT), ""
    except (subprocess.CalledProcessError, PermissionError) as error:
        return None, f"the fresh account cannot run it: {error}"
    finally:
        subprocess.run(["userdel", "--remove", ACCOUNT], check=False, capture_output=True)


if __name__ == "__main__":
    main()
