"""Problems of our own in MultiPL-E's format, and files of completions, for the tests of scoring."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[2] / "shared" / "benchmarks"

PYTHON = {
    "task_id": "own/0",
    "prompt": "def add(a: int, b: int) -> int:\n",
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n",
}
JAVASCRIPT = {
    "name": "own_0_add",
    "language": "js",
    "prompt": "//Add two numbers.\nfunction add(a, b){\n",
    "tests": (
        "const assert = require('node:assert');\n\n\nfunction test() {\n  let candidate = add;\n"
        '  assert.deepEqual(candidate(1, 2),3);\n  assert.deepEqual(candidate("a", "b"),"ab");\n}\n\ntest();'
    ),
    "stop_tokens": ["\nfunction "],
}
JAVA = {
    "name": "own_0_add",
    "language": "java",
    "prompt": (
        "import java.util.*;\nimport java.lang.reflect.*;\nimport org.javatuples.*;\nimport java.io.*;\n"
        "class Problem {\n    // Add two numbers; with a pair of them, too.\n"
        "    public static Pair<Long, Long> add(long a, ArrayList<Long> b) {\n"
    ),
    "tests": (
        "    }\n    public static void main(String[] args) {\n"
        "    assert(add((1l), (new ArrayList<Long>(Arrays.asList((long)2l)))).equals((Pair.with(1l, 3l))));\n"
        "    assert(add((5l), (new ArrayList<Long>(Arrays.asList()))).equals((Pair.with(5l, 5l))));\n    }\n\n}\n"
    ),
    "stop_tokens": ["\n    }\n"],
}
RIGHT = {
    "python": PYTHON["canonical_solution"],
    "js": "  return a + b;\n}",
    "java": "        long sum = a;\n        for (long one : b) sum += one;\n        return Pair.with(a, sum);\n",
}


def write_lines(path: Path, rows: list[Any]) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def untimed(path: Path) -> list[dict[str, Any]]:
    """The lines of a result without what differs from run to run."""
    return [
        {key: value for key, value in row.items() if key not in ("cpu_ms", "wall_ms", "peak_kb")}
        for row in read_lines(path)
    ]
