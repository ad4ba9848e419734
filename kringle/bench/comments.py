"""`kringle bench comments`: the comment-to-code ratio, MB/s of one core, and how often the keep-or-drop decision
(0.01 < ratio < 0.80) is that of tokenize + ast and pygments.

Files of which the scanner is unsure take the exact way and are timed with it. Peers on the same files: BigCode's own
function (a checkout of bigcode-dataset), pygments alone, tree-sitter (`benchmarks/peers/comments.txt`).
"""

from __future__ import annotations

import gc
import time

from kringle.bench import Measured, Peers
from kringle.bench.data_peers import HERE, sample
from kringle.bench.minhash import peer_rates
from kringle.data.comments import exact_comment_ratio, measure_comments

SAMPLE_BYTES = 24_000_000
SLOW_BYTES = 3_000_000
PEERS = ("bigcode", "pygments", "tree-sitter")


def measure(peers: Peers) -> Measured:
    """Ours over the whole sample, agreement on a part of it, and the peers."""
    rows = sample(SAMPLE_BYTES)
    for language in ("python", "java", "javascript"):
        measure_comments("x\n", language)  # compiles
    collects = gc.isenabled()
    gc.disable()  # as in the stage
    found = []
    seconds: dict[str, float] = {}
    sizes: dict[str, int] = {}
    for language, text in rows:
        started = time.process_time()
        found.append(measure_comments(text, language))
        seconds[language] = seconds.get(language, 0.0) + time.process_time() - started
        sizes[language] = sizes.get(language, 0) + len(text.encode())
    if collects:
        gc.enable()
    compared = agreed = equal = 0
    size = 0
    for (language, text), ours in zip(rows, found, strict=True):
        exact = exact_comment_ratio(text, language)
        compared += 1
        agreed += (0.01 < exact < 0.80) == (0.01 < ours.ratio < 0.80)
        equal += exact == ours.ratio
        size += len(text.encode())
        if size > SLOW_BYTES:
            break
    rates, absent = peer_rates(peers, PEERS, HERE / "comments_peer.py", rows, SLOW_BYTES)
    total = sum(sizes.values()) / 1e6 / sum(seconds.values())
    unsure = sum(not one.fast for one in found)
    by_language = {name: round(sizes[name] / 1e6 / seconds[name], 1) for name in sorted(sizes)}
    return Measured(
        unit="MB/s per core",
        ours=round(total, 2),
        peers=rates,
        absent=absent,
        details={
            "languages": by_language,
            "files": len(rows),
            "bytes": sum(sizes.values()),
            "unsure": unsure,
            "compared": compared,
            "same_decision": agreed,
            "same_ratio": equal,
        },
        lines=[
            f"{total:9.1f} MB/s  ours; {unsure} of {len(rows)} files by a parser",
            *(f"{value:9.1f} MB/s  of that {name}" for name, value in by_language.items()),
            f"same decision on {agreed:,} of {compared:,} files, the very same ratio on {equal:,}",
            *(f"{value:9.2f} MB/s  {name}" for name, value in rates.items()),
            *(f"   absent      {name}" for name in absent),
        ],
    )
