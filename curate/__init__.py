"""curate: decide what to train on. One recipe in, one training set out, and a receipt for every row.

    import curate
    run = curate.run("configs/quickstart.yaml")     # the same as `curate run`
    run.facts["counts"], run.explain(*run.find("quickstart.jsonl:17")[0])

Importing this loads neither torch nor ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from curate.ledger import Ledger

__all__ = ["run"]


def run(
    recipe: str | Path, run_dir: str | Path | None = None, engine: str = "ray", changes: tuple[str, ...] = (), **options: Any
) -> Ledger:
    """Run a recipe file and give back the run as it stands on the disk: the object that the commands use.

    `changes`: "stage.field=value" each. `options`: workers, address, num_cpus, num_gpus, progress (see
    `curate.pipeline.execute`). Raises `curate.errors.CurateError` with the remedy in its message.
    """
    from pathlib import Path

    from curate.ledger import open_run
    from curate.pipeline import execute

    facts = execute(Path(recipe), Path(run_dir) if run_dir else None, engine, changes, **options)
    return open_run(Path(facts["run"]))
