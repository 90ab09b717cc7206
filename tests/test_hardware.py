"""Device, number type and memory: curate/hardware.py."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import save_tiny_model

from curate import hardware


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("hardware") / "tiny")


LINUX_CPU = pytest.mark.skipif(
    hardware.device() != "cpu" or not sys.platform.startswith("linux"), reason="the C library of Linux, models on the CPU"
)


def memory_of(tiny: Path, code: str, what: str) -> list[int]:
    """What `code` prints in a process that has loaded a model (`what` is "model") or none; `used()` are its resident bytes, `faults()` its page faults."""
    before = f"""
import resource, sys, torch
from curate import hardware, models
if sys.argv[1] == "model": models.load_causal_lm({str(tiny)!r})
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
used = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
"""
    ended = subprocess.run([sys.executable, "-c", before + code, what], capture_output=True, text=True, check=True)
    return [int(word) for word in ended.stdout.split()]


@LINUX_CPU
def test_a_process_with_a_model_keeps_freed_memory(tiny):
    """Four times 28 MB are taken, filled and freed again and again: once there is a place for them, the system has no pages to clear."""
    code = """
import ctypes
c = ctypes.CDLL(None)
c.malloc.restype, c.free.argtypes, c.memset.argtypes = ctypes.c_void_p, [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def again():
    blocks = [c.malloc(28_000_000) for _ in range(4)]
    for block in blocks: c.memset(block, 1, 28_000_000)
    while blocks: c.free(blocks.pop())
for _ in range(10): again()
before = faults()
for _ in range(10): again()
print(faults() - before)
"""
    (without,), (with_model,) = (memory_of(tiny, code, what) for what in ("none", "model"))
    assert with_model < without / 10


@LINUX_CPU
def test_large_blocks_of_a_process_with_a_model_go_back(tiny):
    """Blocks of a training, each longer than the one before: none fits where one was."""
    code = """
torch.ones(1)
before = used()
for size in range(10_000_000, 30_000_000, 1_000_000): block = torch.ones(size); other = torch.ones(size + 500_000); del block
del other
print(used() - before)
"""
    assert memory_of(tiny, code, "model")[0] < 100 << 20


@LINUX_CPU
def test_holes_between_blocks_go_back_when_asked_for(tiny):
    """A thousand freed blocks, each between two in use, are the process's until it gives them back."""
    code = """
blocks = [torch.ones(50_000) for _ in range(2000)]
full = used()
del blocks[::2]
kept = used()
hardware.give_back_freed_memory()
print(full - kept, full - used())
"""
    kept, given = memory_of(tiny, code, "model")
    assert kept < 40 << 20 and given > 160 << 20


def test_declared_gpus_are_asked_for_and_the_models_stay_on_the_processor(monkeypatch):
    monkeypatch.delenv("CURATE_LOGICAL_GPUS", raising=False)
    expected = 1.0 if hardware.device() == "cuda" else 0.0
    assert hardware.gpus_wanted() == expected
    monkeypatch.setenv("CURATE_LOGICAL_GPUS", "2")
    assert hardware.gpus_wanted() == 1.0
