"""semhash over given vectors, in the environment that has it: which row falls to which, and its CPU seconds.

PYTHON semhash_peer.py VECTORS.npy TEXTS.json THRESHOLD
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from semhash import SemHash


class Given:
    """An encoder that looks vectors up by text."""

    def __init__(self, texts, vectors):
        self.row = dict(zip(texts, vectors, strict=True))

    def encode(self, inputs, **_):
        return np.stack([self.row[text] for text in inputs])


vectors, texts = np.load(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
texts = [f"{number} {text}" for number, text in enumerate(texts)]  # so that equal texts stay apart
started = time.process_time()
index = SemHash.from_records(records=texts, model=Given(texts, vectors))
result = index.self_deduplicate(threshold=float(sys.argv[3]))
cpu = time.process_time() - started
number = {text: row for row, text in enumerate(texts)}
twin = {}
for record in result.filtered:
    others = [other for other, _ in record.duplicates]
    if others:
        twin[number[record.record]] = number[others[0]]
print(json.dumps({"cpu": cpu, "twin": twin}))
