"""BigCode's search for emails, addresses and keys, timed.

    python pii_peer.py NAME SAMPLE CHECKOUT

CHECKOUT is the folder `pii` of bigcode-dataset at 5cb43e9 (November 2022), whose gibberish model is read from the
working directory. Processor time of one core, replacing not included; prints {"rate": MB/s}. Runs in the peer's
environment, which has detect-secrets, gibberish-detector and regex, so it imports nothing of Kringle.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path


def main():
    _, sample, checkout = sys.argv[1:4]
    texts = [json.loads(line)["content"] for line in Path(sample).read_text(encoding="utf-8").splitlines()]
    os.chdir(checkout)
    sys.path.insert(0, ".")
    addresses = importlib.import_module("utils.emails_ip_addresses_detection").detect_email_addresses
    keys = importlib.import_module("utils.keys_detection").detect_keys

    def find(text):
        return addresses(text, {"EMAIL", "IP_ADDRESS"}) + keys(text)

    find(texts[0])
    started = time.process_time()
    for text in texts:
        find(text)
    print(json.dumps({"rate": sum(len(t.encode()) for t in texts) / 1e6 / (time.process_time() - started)}))


if __name__ == "__main__":
    main()
