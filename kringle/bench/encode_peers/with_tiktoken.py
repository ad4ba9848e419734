"""Encode texts with tiktoken and the same vocabulary: RANKS_JSON TEXTS_JSON. Prints bytes per second.

tiktoken knows no digit splitter, so its pattern takes each digit alone; a run of spaces before a digit is cut elsewhere
than in SantaCoder's tokenizer, so the ids are nearly, not quite, the same.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

PATTERN = r"\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def main(ranks_file: str, texts_file: str) -> None:
    import tiktoken

    ranks = {bytes.fromhex(token): id for token, id in json.loads(Path(ranks_file).read_text()).items()}
    encoding = tiktoken.Encoding("bench", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    texts = json.loads(Path(texts_file).read_text(encoding="utf-8"))
    started = time.process_time()
    tokens = sum(len(encoding.encode_ordinary(text)) for text in texts)
    seconds = time.process_time() - started
    size = sum(len(text.encode()) for text in texts)
    print(json.dumps({"rate": size / seconds, "tokens": tokens, "version": tiktoken.__version__}))


if __name__ == "__main__":
    main(*sys.argv[1:])
