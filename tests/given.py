"""What several tests give to a stage: tables in memory as a fit's inputs, and two kinds of text."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

# All of six letters: the length of a text tells nothing.
WIKI = ["treaty", "rivers", "empire", "fossil", "planet", "theory", "throne", "orbits"]
SPAM = ["buying", "nowish", "freely", "clicks", "winner", "casino", "luxury", "offers"]


def sentence(words: list[str], generator: np.random.Generator) -> str:
    return " ".join(generator.choice(words, 12))


class Shards:
    """`stage.Inputs` over tables in memory, one shard each."""

    def __init__(self, *tables: pa.Table):
        self.given = {f"{i:05d}": table for i, table in enumerate(tables)}
        self.shards = list(self.given)
        self.rows = sum(table.num_rows for table in tables)

    def table(self, shard: str) -> pa.Table:
        return self.given[shard]

    def tables(self) -> Iterator[tuple[str, pa.Table]]:
        yield from self.given.items()
