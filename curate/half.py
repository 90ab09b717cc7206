"""What our float16 kernels share: where they can run, how a C++ file becomes a library, the layout of weights.

For processors that compute in float16 but have no matrix unit (avx512_fp16 without amx_bf16), where torch gains nothing
from 16 bits: it widens them to float32 first. The kernels: embed/bert_half.cpp, score/llama_half.cpp.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from curate import hardware, models
from curate.errors import UserMistake

FLAGS = ("-std=c++17", "-O3", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512fp16", "-mfma", "-fPIC", "-shared")


def runs_here(source: Path) -> str:
    """What would run (source and compiler), for a fingerprint; "" where the processor or the compiler do not fit."""
    info = Path("/proc/cpuinfo")
    name, _, version = hardware.compiler().partition(" ")
    fits = (
        hardware.device() == "cpu"
        and info.exists()
        and "avx512_fp16" in info.read_text().split()
        and int(version.split(".")[0] or 0) >= 12  # g++ 12 and clang 14 know the instructions
    )
    return f"{hashlib.sha256(source.read_bytes()).hexdigest()[:16]} {name} {version}" if fits else ""


def library(source: Path, *functions: str) -> ctypes.CDLL:
    """The shared library with these functions without a result, from the cache or compiled: of two workers that race, one rename wins, with equal content."""
    key = hashlib.sha256(repr((source.read_bytes(), FLAGS, hardware.compiler())).encode()).hexdigest()
    final = models.cache_folder() / "kernels" / f"{key[:32]}.so"
    if not final.is_file():
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent) as aside:
            attempt = Path(aside) / final.name
            compiler = os.environ.get("CXX") or "g++"  # the one whose version hardware.compiler() tells
            done = subprocess.run([compiler, *FLAGS, "-o", str(attempt), str(source)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise UserMistake(f"{source.name} does not compile: set dtype: float32, or mend the compiler:\n{done.stderr[-2000:]}")
            attempt.rename(final)
    found = ctypes.CDLL(str(final))
    for function in functions:
        getattr(found, function).restype = None
    return found


def panels(matrix: np.ndarray) -> np.ndarray:
    """(outputs, inputs) float32 -> float16 [outputs / 32][inputs / 2][32][2], the layout that both kernels read."""
    outputs, inputs = matrix.shape
    return np.ascontiguousarray(matrix.reshape(outputs // 32, 32, inputs // 2, 2).transpose(0, 2, 1, 3), np.float16)


def at(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
