from __future__ import annotations

import pytest
from doubles import Server


@pytest.fixture
def server():
    double = Server()
    yield double
    double.stop()
