from pathlib import Path

import pytest
from tiny_model import save_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 layers, hidden 32, FFN 48, random weights."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [f"Line {n}: the {'quick brown fox' if n % 2 else 'lazy dog'} counts to {n * 7}." for n in range(20)]
