"""README.md, croissant.json and CHANGES.md of a published version."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_about(folder: Path, stage: Any, schema: Any, rejected: Any, counts: Any, dropped: Any, sources: Any, files: Any) -> None:
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*.parquet\n---\n"
    )
