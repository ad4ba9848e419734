"""Hugging Face's tokenizers, trained on the sample and then timed on it: `python encode_peer.py tokenizers SAMPLE`."""

import json
import os
import sys
import time
from pathlib import Path


def main():
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    texts = [json.loads(line)["content"] for line in Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=8192, initial_alphabet=alphabet))
    started = time.process_time()
    for text in texts:
        tokenizer.encode(text)
    print(json.dumps({"rate": sum(len(t.encode()) for t in texts) / 1e6 / (time.process_time() - started)}))


if __name__ == "__main__":
    main()
