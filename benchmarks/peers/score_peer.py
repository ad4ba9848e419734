"""Run programs the way a peer's harness does, in its own code, and say how long that took and which ones passed.

    python score_peer.py KIND CHECKOUT PROGRAMS WORKERS

KIND is human-eval, multipl-e (BigCode's copy) or plain; PROGRAMS a JSON list of {language, problem, completion, text};
`text` is the whole program with its tests. The programs are mutants of trusted solutions: no peer here has a jail.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TIMEOUT = 15.0  # seconds of wall time, MultiPL-E's


def human_eval(checkout: str) -> Callable[[dict[str, Any]], bool]:
    sys.path.insert(0, checkout)
    from human_eval.execution import check_correctness

    def run(program: dict[str, Any]) -> bool:
        result: bool = check_correctness(program["problem"], program["completion"], timeout=3.0)["passed"]
        return result

    return run


def multipl_e(checkout: str) -> Callable[[dict[str, Any]], bool]:
    sys.path.insert(0, str(Path(checkout) / "bigcode_eval" / "tasks" / "custom_metrics"))
    # The package alone: the harness around it imports datasets and transformers.
    from multiple_metrics.containerized_eval import eval_string_script

    def run(program: dict[str, Any]) -> bool:
        result = eval_string_script({"javascript": "js", "python": "py"}[program["language"]], program["text"])
        return result["status"] == "OK" and result["exit_code"] == 0

    return run


def plain(tuples: str) -> Callable[[dict[str, Any]], bool]:
    def run(program: dict[str, Any]) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            name = {"java": "Problem.java", "javascript": "program.js", "python": "program.py"}[program["language"]]
            file = Path(folder) / name
            file.write_text(program["text"])
            if program["language"] == "java":
                if _ends_well(["javac", "-encoding", "UTF8", "-cp", tuples, "-d", folder, str(file)]):
                    return _ends_well(["java", "-ea", "-cp", f"{folder}{os.pathsep}{tuples}", "Problem"])
                return False
            return _ends_well(["node" if program["language"] == "javascript" else "python3", str(file)])

    return run


def _ends_well(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def main() -> None:
    kind, checkout, programs_file, workers = sys.argv[1:]
    run = {"human-eval": human_eval, "multipl-e": multipl_e, "plain": plain}[kind](checkout)
    programs = json.loads(Path(programs_file).read_text())
    started = time.monotonic()
    with ThreadPoolExecutor(max_workers=int(workers)) as pool:
        passed = list(pool.map(run, programs))
    print(json.dumps({"seconds": time.monotonic() - started, "passed": passed}))


if __name__ == "__main__":
    main()
