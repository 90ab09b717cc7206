"""What this machine computes with: device, number type, compiler, the GPUs to ask for, freed memory. Where float16 kernels run says half.py.

Nothing here imports torch before it must, so that a fingerprint is made, and a finished run recognised, in a second.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sysconfig
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Literal

Precision = Literal["auto", "float32", "bfloat16", "float16"]


@lru_cache(maxsize=1)
def device() -> str:
    """ "cuda" where there are a driver, a visible device and a torch built for it; else "cpu"."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    driver = Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()
    built = "+cpu" not in metadata.version("torch")
    return "cuda" if driver and built and visible not in ("", "-1") else "cpu"


@lru_cache(maxsize=1)
def dtype() -> Literal["float32", "bfloat16"]:
    """The faster type on our device: bfloat16 on CUDA, on CPUs with AMX, on AMD with avx512_bf16.

    Measured on one core, GFLOP/s in fp32 and bf16: EPYC (Zen 5) 95 and 400, Xeon with avx512_bf16 but no AMX 132 and 84.
    """
    if device() == "cuda":
        return "bfloat16"
    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.exists() else set()
    return "bfloat16" if "amx_bf16" in words or {"avx512_bf16", "AuthenticAMD"} <= words else "float32"


@lru_cache(maxsize=1)
def compiler() -> str:
    """Name and version of what torch.compile would use for the CPU; "" where it could not compile."""
    found = shutil.which(os.environ.get("CXX") or "g++")
    if device() != "cpu" or not found or not Path(sysconfig.get_path("include"), "Python.h").exists():
        return ""
    version = subprocess.run([found, "-dumpfullversion"], capture_output=True, text=True, check=False)
    return f"{Path(found).name} {version.stdout.strip()}"


def compiled() -> bool:
    return bool(compiler())


def resolved(precision: Precision) -> str:
    return dtype() if precision == "auto" else precision


def execution_identity(precision: Precision = "auto", compiles: bool = False) -> dict[str, str]:
    """For a fingerprint: what the last bits depend on, besides weights, code and library versions."""
    found = {"device": device(), "dtype": resolved(precision)}
    return {**found, "kernels": compiler() or "eager"} if compiles else found


def gpus_wanted() -> float:
    """`num_gpus` a model stage asks for: also where GPUs are only declared (CURATE_LOGICAL_GPUS), to test scheduling."""
    return 1.0 if device() == "cuda" or os.environ.get("CURATE_LOGICAL_GPUS") else 0.0


def device_memory() -> int:
    """Bytes that a device of ours has in all, used or not: the same whenever it is asked."""
    if device() == "cuda":
        import torch

        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """From now on the C library keeps freed blocks of up to 32 MiB for the next call, where it is glibc.

    A model takes and frees the same blocks for every batch; glibc gives them back to the system, and the system clears them again: 4 to 10 % of the CPU
    seconds of a scoring pass. Larger blocks still go back: kept too, they saved half as much again, and a training of rows of all lengths grew from 5 to
    9.6 GB, as a block that no longer fits is taken anew (docs/log.md, 2026-11-29).
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        for option, value in ((-3, 32 << 20), (-1, 2**31 - 1), (-2, 64 << 20)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD of malloc.h
            libc.mallopt(option, value)


def give_back_freed_memory() -> None:
    """Freed memory to the system, the holes between blocks in use too, where the C library is glibc: some .1 s.

    For loops whose batches have many shapes: blocks of one do not fit the holes that another left, and the process grows (docs/log.md, 2026-11-29).
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.malloc_trim(0)
