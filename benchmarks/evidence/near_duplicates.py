"""The long proof of near-deduplication, on all Python, JavaScript and Java of this machine.

1. `faithful` keeps exactly the files that an independent implementation (tests/near_duplicate_oracle.py) keeps.
2. 10,000 planted near-duplicates, by realised Jaccard similarity: measured recall beside the theoretical curve.
3. 200 removals of `corrected`, drawn at random, written out for reading: removed lines that the witness lacks.

    python benchmarks/evidence/near_duplicates.py [--max-bytes 200000000] [--roots DIR ...] [--parts 1,2,3]

Writes benchmarks/results/near_duplicates.json (parts that were not asked for stay as they are), and for part 3 the
removals to --removals FILE; the judgements are kept in benchmarks/evidence/near_duplicates_judged.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))

import near_duplicate_oracle as oracle  # noqa: E402

from kringle.data.near_duplicates.bands import Bands, sure_bands  # noqa: E402
from kringle.data.near_duplicates.find import find  # noqa: E402
from kringle.data.near_duplicates.inputs import Columns, Shard, texts  # noqa: E402
from kringle.data.near_duplicates.method import Method  # noqa: E402
from kringle.data.near_duplicates.minhash import legacy_signatures, word_signatures  # noqa: E402
from kringle.data.near_duplicates.shingles import body_start  # noqa: E402
from kringle.engine import Engine  # noqa: E402
from kringle.machine import machine, versions  # noqa: E402
from kringle.progress import Reporter  # noqa: E402
from kringle.workspace import ShardStore  # noqa: E402

LANGUAGES = {".py": "python", ".js": "javascript", ".java": "java"}
RESULT = HERE.parent / "results" / "near_duplicates.json"


def files(roots: list[Path]) -> Iterator[tuple[str, str, bytes]]:
    """(language, path, bytes) of every source file below the roots; JDK sources come out of their archives."""
    for root in roots:
        for folder, inside, names in os.walk(root):
            inside.sort()
            for name in sorted(names):
                path = Path(folder) / name
                if path.is_symlink() or not path.is_file():
                    continue
                if path.suffix in LANGUAGES:
                    yield LANGUAGES[path.suffix], str(path), path.read_bytes()
                elif name == "src.zip":
                    with zipfile.ZipFile(path) as archive:
                        for member in sorted(archive.namelist()):
                            if member.endswith(".java"):
                                yield "java", f"{path}/{member}", archive.read(member)


def corpus(roots: list[Path], max_bytes: int) -> dict[str, list[tuple[str, str]]]:
    """Language -> (path, text), one for each content, in the order of paths; at most `max_bytes` in all, drawn by a
    hash of the path so that the sample does not depend on the order of reading."""
    seen: set[bytes] = set()
    found: list[tuple[bytes, str, str, str]] = []
    for language, path, data in files(roots):
        digest = hashlib.sha1(data).digest()
        if digest in seen or len(data) > 1_000_000 or not data:
            continue
        seen.add(digest)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            continue
        folder = str(Path(path).parent)  # neighbours stay together: near-duplicates lie in equal places of two versions
        tail = "/".join(folder.split("/")[-2:])
        found.append((hashlib.sha1(tail.encode()).digest(), language, path, text))
    found.sort()
    out: dict[str, list[tuple[str, str]]] = {language: [] for language in LANGUAGES.values()}
    size = 0
    for _, language, path, text in found:
        size += len(text.encode())
        if size > max_bytes:
            break
        out[language].append((path, text))
    return {language: sorted(rows) for language, rows in out.items()}


def run(contents: list[str], paths: list[str], method: Method, engine: Engine) -> Any:
    """Our own decision, over several shards."""
    with tempfile.TemporaryDirectory() as folder:
        shards = []
        for first in range(0, len(contents), 2000):
            part = {"content": contents[first : first + 2000], "path": paths[first : first + 2000]}
            path = Path(folder) / f"{first:09d}.parquet"
            pq.write_table(pa.table(part), path, row_group_size=200)
            shards.append(Shard(path, "parquet", Columns("content", path="path"), len(part["path"]), str(first)))
        return find(shards, method, ShardStore(Path(folder) / "store", "x"), engine, Reporter(quiet=True))


def faithful(found: dict[str, list[tuple[str, str]]], engine: Engine) -> list[dict[str, Any]]:
    rows = []
    for language, entries in found.items():
        contents = [text for _, text in entries]
        for name, method, independent in (
            ("stronger", Method.of(5, 0.7, "faithful"), oracle.stronger),
            ("base", Method.of(1, 0.85, "faithful"), oracle.base),
        ):
            started = time.monotonic()
            ours = run(contents, [path for path, _ in entries], method, engine).kept.tolist()
            between = time.monotonic()
            theirs = independent(contents)
            rows.append(
                {
                    "language": language,
                    "step": name,
                    "files": len(contents),
                    "bytes": sum(len(text.encode()) for text in contents),
                    "kept": sum(ours),
                    "kept_by_the_independent_implementation": sum(theirs),
                    "different": sum(a != b for a, b in zip(ours, theirs, strict=True)),
                    "seconds": round(between - started, 1),
                    "seconds_of_the_independent_implementation": round(time.monotonic() - between, 1),
                }
            )
            print(rows[-1], flush=True)
    return rows


# -- recall ------------------------------------------------------------------------------------------------------------

WORD = re.compile(r"(?:\w|[^\x00-\x7f])+", re.ASCII)


def grams(text: str) -> set[tuple[str, ...]]:
    """What `corrected` compares: 5-grams of words, those of a leading notice of copyright or licence left out."""
    data = text.encode()
    start = body_start(np.frombuffer(data, np.uint8), 0, len(data))
    words = WORD.findall(data[start:].decode())
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def jaccard(a: set[Any], b: set[Any]) -> float:
    return len(a & b) / len(a | b)


def plant(text: str, draws: random.Random) -> str:
    """A copy with words replaced, as many as a similarity drawn from [0.5, 1) asks for."""
    spans = [m.span() for m in WORD.finditer(text)]
    target = 0.5 + draws.random() / 2
    count = max(1, round(len(spans) * (1 - target) / (1 + target) / 5))
    out, place = [], 0
    for start, end in sorted(draws.sample(spans, min(count, len(spans)))):
        out += [text[place:start], f"w{draws.randrange(10**6)}"]
        place = end
    return "".join([*out, text[place:]])


def recall(found: dict[str, list[tuple[str, str]]], pairs: int) -> dict[str, Any]:
    draws = random.Random(0)
    texts_of_a_size = [text for rows in found.values() for _, text in rows if 1500 < len(text) < 20_000]
    pool = [text for text in texts_of_a_size if grams(text)]  # not a notice alone
    chosen = draws.sample(pool, min(pairs, len(pool)))
    chosen += [draws.choice(pool) for _ in range(pairs - len(chosen))]
    copies = [plant(text, draws) for text in chosen]
    kinds: dict[str, Any] = {}
    bands = sure_bands(0.7), sure_bands(0.85), Bands(25, 10)
    batches = [texts(pa.chunked_array([pa.array(side)]), "pairs") for side in (chosen, copies)]
    for name, sets, keys, used in (
        ("corrected-0.7", grams, [word_signatures(*b, 5, 10, bands[0]).keys for b in batches], bands[0]),
        ("corrected-0.85", grams, [word_signatures(*b, 5, 10, bands[1]).keys for b in batches], bands[1]),
        (
            "faithful-0.7",
            oracle.five_grams,
            [legacy_signatures(*b, 5, True, 42, bands[2]).keys for b in batches],
            bands[2],
        ),
    ):
        met = (keys[0] == keys[1]).any(axis=0)
        values = np.array([jaccard(sets(a), sets(b)) for a, b in zip(chosen, copies, strict=True)])
        strata = []
        for low in np.arange(0.4, 1.0, 0.05):
            inside = (values >= low) & (values < low + 0.05)
            if inside.sum() >= 20:
                expected = float(np.mean([used.collision(v) for v in values[inside]]))
                strata.append(
                    {
                        "from": round(float(low), 2),
                        "pairs": int(inside.sum()),
                        "found": round(float(met[inside].mean()), 4),
                        "theory": round(expected, 4),
                    }
                )
        above = {f"{t:g}": [int((values >= t).sum()), round(float(met[values >= t].mean()), 5)] for t in (0.7, 0.85)}
        kinds[name] = {"bands": list(used), "strata": strata, "recall_from": above}
        print(name, json.dumps(kinds[name]), flush=True)
    return {"pairs": pairs, **kinds}


# -- removals ----------------------------------------------------------------------------------------------------------


def removals(found: dict[str, list[tuple[str, str]]], engine: Engine, count: int, out: Path) -> dict[str, Any]:
    """Draw removals at random and write down what the removed file has that its witness has not."""
    drawn: list[tuple[str, str, str, float, str, str]] = []
    told = {}
    for language, entries in found.items():
        contents, paths = [text for _, text in entries], [path for path, _ in entries]
        outcome = run(contents, paths, Method.of(5, 0.7, "corrected"), engine)
        gone = np.flatnonzero(~outcome.kept)
        told[language] = {"files": len(contents), "dropped": len(gone)}
        for i in gone.tolist():
            j = int(outcome.witness[i])
            drawn.append((paths[i], paths[j], language, float(outcome.similarity[i]), contents[i], contents[j]))
    chosen = random.Random(0).sample(sorted(drawn), min(count, len(drawn)))
    with out.open("w") as file:
        for number, (path, witness, _, similarity, mine, theirs) in enumerate(chosen):
            known = {" ".join(line.split()) for line in theirs.splitlines()}
            own = [" ".join(line.split()) for line in mine.splitlines()]
            lines = [line for line in own if line and line not in known]
            file.write(f"== {number} {similarity:.2f} {len(mine)} {path}\n   {witness} {len(theirs)}\n")
            file.writelines(f"   + {line[:150]}\n" for line in lines[:8])
            file.write(f"   ({len(lines)} lines)\n")
    return told


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--max-bytes", type=int, default=200_000_000)
    parser.add_argument("--roots", type=Path, nargs="+", default=[Path("/usr"), Path("/opt")])
    parser.add_argument("--parts", default="1,2,3")
    parser.add_argument("--removals", type=Path, default=Path("removals.txt"))
    given = parser.parse_args()
    engine = Engine()
    found = corpus(given.roots, given.max_bytes)
    record: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    record |= {"machine": asdict(machine()), "versions": versions()}
    sizes = {k: [len(v), sum(len(text.encode()) for _, text in v)] for k, v in found.items()}
    print(sizes, flush=True)
    for part in given.parts.split(","):
        if part == "1":
            record["faithful"] = {"corpus": sizes, "rows": faithful(found, engine)}
        elif part == "2":
            record["recall"] = recall(found, 10_000)
        elif part == "3":
            record["corrected"] = removals(found, engine, 200, given.removals)
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
