"""A run over two Ray nodes on this machine, one of which is killed while both are at work. Prints one line of JSON.

python two_nodes.py RECIPE RUN_DIR STEP     the second node dies once two shards of STEP are committed
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster


def main(recipe: Path, run: Path, step: str) -> None:
    options = {"include_dashboard": False, "object_store_memory": 100 << 20}
    cluster = Cluster(
        initialize_head=True, connect=True, head_node_args={"num_cpus": 1, **options}
    )  # the driver is on the head, which lives on
    node = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    cluster.wait_for_nodes()
    killed: list[int] = []

    def kill() -> None:
        while len(list((run / "stages" / step).glob("*.record"))) < 2:
            time.sleep(0.02)
        cluster.remove_node(node, allow_graceful=False)
        killed.append(len(list((run / "stages" / step).glob("*.record"))))

    watcher = threading.Thread(target=kill, daemon=True)
    watcher.start()
    from curate.pipeline import execute

    facts = execute(recipe, run, "ray", address=cluster.address, workers=2)
    watcher.join(timeout=30)
    print(json.dumps({"kept": facts["kept"], "quarantined": facts["quarantined"], "killed_after": killed}), flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
