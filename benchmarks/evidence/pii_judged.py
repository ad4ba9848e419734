"""Findings in the code of this machine: a sample for people to judge, and whether files parse as before.

    python benchmarks/evidence/pii_judged.py draw SHEET [--leave-out DIR ...]   findings of all Python, Java, JavaScript
    python benchmarks/evidence/pii_judged.py count SHEET [--earlier SHEET]      the judged sheet -> results

`draw` writes a sheet of tab-separated lines, the 200 most confident findings and 200 drawn at random, each with its
place and context, to a file that is not to be committed: it holds what was found. It also redacts every file with a
finding and parses it before and after: Python with `ast`, JavaScript with `node --check`, Java with `javac`'s parser
where they are installed. `count` expects each line's first field to say what a reader decided: `real` (an address or
secret that is somebody's, or could be), `invented` (of the right kind, made up by the author of a test or of
documentation), or `false` (something else). Only `false` counts as a false positive.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine_code import THREE, Source, sources

from kringle.machine import machine, versions
from kringle.pii import findings, redact
from kringle.pii.candidates import Finding
from kringle.randomness import stream

RESULT = Path(__file__).resolve().parents[1] / "results" / "pii_judged.json"
SAMPLE = 200
VERDICTS = ("real", "invented", "false")
KEY = b"judged"
_NODE = """
const vm = require("vm"), fs = require("fs");
for (const name of fs.readFileSync(0, "utf8").split("\\n")) {
  let good = 1;
  try { new vm.Script(fs.readFileSync(name, "utf8")); } catch (error) { good = 0; }
  console.log(good);
}
"""
_JAVA = """
import com.sun.source.util.JavacTask;
import java.nio.file.*;
import java.util.*;
import javax.tools.*;
class Parse {
  public static void main(String[] a) throws Exception {
    JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
    for (String name : Files.readAllLines(Path.of(a[0]))) {
      DiagnosticCollector<JavaFileObject> errors = new DiagnosticCollector<>();
      StandardJavaFileManager manager = compiler.getStandardFileManager(errors, null, null);
      Iterable<? extends JavaFileObject> file = manager.getJavaFileObjects(name);
      ((JavacTask) compiler.getTask(null, manager, errors, null, null, file)).parse();
      System.out.println(errors.getDiagnostics().stream().noneMatch(d -> d.getKind() == Diagnostic.Kind.ERROR) ? 1 : 0);
    }
  }
}
"""


class Found(NamedTuple):
    """One finding, its file's content, and a name for the place."""

    source: Source
    finding: Finding
    before: bytes
    value: bytes
    after: bytes


def scan(every: Iterable[Source]) -> tuple[list[Found], dict[str, list[tuple[bytes, bytes]]], Counter[str]]:
    """All findings; contents before and after redaction of the files that have any, by language; counts."""
    found: list[Found] = []
    changed: dict[str, list[tuple[bytes, bytes]]] = {language: [] for language in THREE}
    counts: Counter[str] = Counter()
    for source in every:
        data = source.read()
        counts[f"files {source.language}"] += 1
        counts[f"bytes {source.language}"] += len(data)
        here = findings(data)
        for finding in here:
            start, end = finding.start, finding.end
            found.append(
                Found(source, finding, data[max(0, start - 150) : start], data[start:end], data[end : end + 80])
            )
            counts[f"{finding.kind} {finding.format}"] += 1
        if here:
            changed[source.language].append((data, redact(data, KEY)[0]))
    return found, changed, counts


def draw(found: Sequence[Found]) -> list[tuple[str, Found]]:
    """The most confident findings (ties in the order of a hash) and a random sample of the others."""
    order = stream(0, "pii judged", "ties").permutation(len(found))
    ranked = sorted(order.tolist(), key=lambda i: -found[i].finding.confidence)
    rest = ranked[SAMPLE:]
    chosen = stream(0, "pii judged", "random").permutation(len(rest))[:SAMPLE]
    return [("confident", found[i]) for i in ranked[:SAMPLE]] + [("random", found[rest[i]]) for i in chosen]


def write_sheet(sheet: Path, sample: Sequence[tuple[str, Found]]) -> None:
    lines = []
    for group, item in sample:
        finding = item.finding
        place = item.source.member or str(item.source.path)
        context = " ".join(
            json.dumps(part.decode("utf-8", "replace"))
            for part in (item.before.rpartition(b"\n")[2], item.value, item.after.partition(b"\n")[0])
        )
        lines.append(f"?\t{group}\t{finding.kind}\t{finding.format}\t{finding.confidence}\t{place}\t{context}")
    sheet.write_text("\n".join(lines) + "\n", encoding="utf-8")


# ---- parsing


def parses_python(data: bytes) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(data)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True


def parse_rates(changed: dict[str, list[tuple[bytes, bytes]]]) -> dict[str, Any]:
    """By language: files with findings, how many parsed before and after, how many differ."""
    rates: dict[str, Any] = {}
    for language, pairs in changed.items():
        before, after = (_parse(language, [pair[side] for pair in pairs]) for side in (0, 1))
        if before is None or after is None:
            rates[language] = "no parser here"
            continue
        differ = sum(x != y for x, y in zip(before, after, strict=True))
        rates[language] = {"files": len(pairs), "before": sum(before), "after": sum(after), "differ": differ}
    return rates


def _parse(language: str, contents: Sequence[bytes]) -> list[bool] | None:
    if language == "python":
        return [parses_python(data) for data in contents]
    if shutil.which("node" if language == "javascript" else "java") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = []
        for number, data in enumerate(contents):
            path = root / str(number) / ("x.js" if language == "javascript" else "X.java")
            path.parent.mkdir()
            path.write_bytes(data)
            names.append(str(path))
        if language == "javascript":
            done = subprocess.run(
                ["node", "-e", _NODE], input="\n".join(names), capture_output=True, text=True, check=True
            )
        else:
            (root / "Parse.java").write_text(_JAVA)
            (root / "names").write_text("\n".join(names))
            command = ["java", str(root / "Parse.java"), str(root / "names")]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [answer == "1" for answer in done.stdout.split()]


# ---- counting


def wilson(wrong: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """95% interval of a share (Wilson 1927)."""
    share, spread = wrong / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / total / 4)
    return round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)


def count(sheet: Path) -> dict[str, Any]:
    """Shares of the verdicts by group and kind; raises ValueError for a line that nobody judged."""
    rows = [line.split("\t") for line in sheet.read_text(encoding="utf-8").splitlines()]
    if unknown := {row[0] for row in rows} - set(VERDICTS):
        raise ValueError(f"not judged: {sorted(unknown)}")
    judged: dict[str, Any] = {}
    for group in ("confident", "random"):
        for kind in ("all", "email", "ip", "key"):
            verdicts = Counter(row[0] for row in rows if row[1] == group and kind in ("all", row[2]))
            total = sum(verdicts.values())
            if total:
                wrong = verdicts["false"]
                judged[f"{group}, {kind}"] = {
                    **{verdict: verdicts[verdict] for verdict in VERDICTS},
                    "false_positive_rate": round(wrong / total, 4),
                    "interval": wilson(wrong, total),
                }
    return judged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("draw", "count"))
    parser.add_argument("sheet", type=Path, help="the sheet, outside the repository")
    parser.add_argument("--earlier", type=Path, help="count: a sheet that was judged before rules were mended")
    parser.add_argument("--roots", type=Path, nargs="*", default=[Path("/")], help="trees to look for code in")
    parser.add_argument("--leave-out", type=Path, nargs="*", default=[], help="folders to pass over")
    arguments = parser.parse_args()
    side = arguments.sheet.with_suffix(".json")
    if arguments.step == "draw":
        found, changed, counts = scan(sources(arguments.roots, THREE, arguments.leave_out))
        write_sheet(arguments.sheet, draw(found))
        side.write_text(json.dumps({"counts": dict(counts), "findings": len(found), "parse": parse_rates(changed)}))
        print(f"{len(found):,} findings; judge {arguments.sheet}", file=sys.stderr)
        return
    record = {
        "evidence": "pii_judged",
        **json.loads(side.read_text()),
        "judged": count(arguments.sheet),
        "judged_before_mending": count(arguments.earlier) if arguments.earlier else None,
        "machine": machine().__dict__,
        "versions": versions(),
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
