"""Encode texts with the `tokenizers` library in one thread: TOKENIZER_JSON TEXTS_JSON. Prints bytes per second."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path


def main(tokenizer: str, texts_file: str) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import tokenizers

    backend = tokenizers.Tokenizer.from_file(tokenizer)
    backend.encode_special_tokens = True
    texts = json.loads(Path(texts_file).read_text(encoding="utf-8"))
    started = time.process_time()
    encodings = [backend.encode_batch_fast([text], add_special_tokens=False)[0] for text in texts]
    seconds = time.process_time() - started
    digest = hashlib.sha256()
    for encoding in encodings:
        digest.update(json.dumps(encoding.ids).encode())
    size = sum(len(text.encode()) for text in texts)
    print(json.dumps({"rate": size / seconds, "ids": digest.hexdigest(), "version": tokenizers.__version__}))


if __name__ == "__main__":
    main(*sys.argv[1:])
