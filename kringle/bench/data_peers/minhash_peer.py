"""One peer's MinHash signatures with SantaCoder's settings (256 permutations, 5-grams with empty fields), timed.

    python minhash_peer.py NAME SAMPLE [CHECKOUT]

Processor time of one core; prints {"rate": MB/s} or what is missing. Runs in the peer's environment, so it imports
nothing of Kringle.
"""

import ast
import importlib
import json
import re
import sys
import time
from pathlib import Path

FIELD = re.compile("[^A-Za-z_0-9]")


def shingles(text):
    fields = FIELD.split(text)
    return {" ".join(fields[i : i + 5]) for i in range(len(fields) - 4)}


def bigcode(checkout):
    """`embed_func` of BigCode's script, which cannot be imported for its many packages: the functions and constants it
    needs are taken from its source as they stand."""
    import numpy as np

    script = Path(checkout) / "data_analysis/near-deduplication/minhash_deduplication_alt.py"
    if not script.exists():
        script = Path(checkout) / "near_deduplication/minhash_deduplication.py"
    wanted = ("embed_func", "ngrams", "sha1_hash32")
    body = []
    for node in ast.parse(script.read_text()).body:
        constant = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "").isupper()
        if (isinstance(node, ast.FunctionDef) and node.name in wanted) or constant:
            body.append(node)
    scope = {"np": np, "re": re}
    for name in ("hashlib", "struct"):
        scope[name] = importlib.import_module(name)
    for name in ("Any", "Dict", "Iterable", "List", "Set", "Text", "Tuple"):
        scope[name] = getattr(importlib.import_module("typing"), name)
    scope["tee"] = importlib.import_module("itertools").tee
    exec(compile(ast.Module(body, []), str(script), "exec"), scope)
    generator, prime = np.random.RandomState(42), (1 << 61) - 1
    pairs = [
        (generator.randint(1, prime, dtype=np.uint64), generator.randint(0, prime, dtype=np.uint64)) for _ in range(256)
    ]
    settings = {
        "num_perm": 256,
        "ngram_size": 5,
        "hashranges": [(i * 10, (i + 1) * 10) for i in range(25)],
        "permutations": np.array(pairs, dtype=np.uint64).T,
    }
    parameters = scope["embed_func"].__code__.co_varnames[: scope["embed_func"].__code__.co_kwonlyargcount + 2]
    if "min_length" in parameters:
        settings["min_length"] = 5
    return lambda text: scope["embed_func"](text, 0, **settings)


def datasketch(_):
    from datasketch import MinHash

    def sign(text):
        m = MinHash(num_perm=256, seed=42)
        m.update_batch([s.encode() for s in shingles(text)])
        return m.hashvalues

    return sign


def rensa(_):
    from rensa import RMinHash

    def sign(text):
        m = RMinHash(num_perm=256, seed=42)
        m.update(list(shingles(text)))
        return m.digest()

    return sign


def datatrove(_):
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    step = MinhashDedupSignature("unused", MinhashConfig(n_grams=5, num_buckets=25, hashes_per_bucket=10))
    return lambda text: step.get_signature(step.get_shingles(text))


def text_dedup(_):
    import numpy as np
    from text_dedup.minhash import embed_func

    generator, prime = np.random.RandomState(42), (1 << 61) - 1
    a = generator.randint(1, prime, 256, dtype=np.uint64)
    b = generator.randint(0, prime, 256, dtype=np.uint64)
    ranges = [(i * 10, (i + 1) * 10) for i in range(25)]
    hash_func = importlib.import_module("text_dedup.utils.hashfunc").sha1_hash

    def sign(text):
        return embed_func(
            text,
            0,
            num_perm=256,
            ngram_size=5,
            min_length=5,
            hashranges=ranges,
            permutations=(a, b),
            hash_func=lambda x: hash_func(x, d=32),
            dtype=np.uint64,
            max_hash=np.uint64((1 << 32) - 1),
            modulo_prime=np.uint64(prime),
        )

    return sign


def main():
    name, sample = sys.argv[1:3]
    texts = [json.loads(line)["content"] for line in Path(sample).read_text(encoding="utf-8").splitlines()]
    sign = globals()[name.replace("-", "_")](sys.argv[3] if len(sys.argv) > 3 else None)
    sign(texts[0])
    started = time.process_time()
    for text in texts:
        sign(text)
    print(json.dumps({"rate": sum(len(t.encode()) for t in texts) / 1e6 / (time.process_time() - started)}))


if __name__ == "__main__":
    main()
