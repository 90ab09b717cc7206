"""Bytes and lines of a text file, plain, gzip or zstd: never more in memory than a row may have."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from curate.errors import UnreadableFile

CHUNK = 1 << 20
# Below this many unpacked bytes no file is called a bomb, whatever its ratio.
HARMLESS = 256 << 20
COMPRESSIONS = {".gz": ("gzip", b"\x1f\x8b"), ".zst": ("zstd", b"\x28\xb5\x2f\xfd")}
UTF16 = (b"\xff\xfe", b"\xfe\xff")
UTF8_MARK = b"\xef\xbb\xbf"


def unpacked_limit(packed: int, max_ratio: int, max_file_bytes: int) -> int:
    """Bytes that a file of `packed` bytes may unpack to."""
    return min(max_file_bytes, max(HARMLESS, packed * max_ratio))


def refuse_bomb(limit: int) -> UnreadableFile:
    return UnreadableFile(
        f"unpacks to more than {limit:,} bytes, far above its own size; "
        "if you trust it, raise ingest.max_unpack_ratio or ingest.max_file_bytes"
    )


def chunks(path: Path, max_ratio: int, max_file_bytes: int) -> Iterator[bytes]:
    """The unpacked bytes of a text file without a byte order mark; raises UnreadableFile at the first damage."""
    compression = COMPRESSIONS.get(path.suffix.lower())
    limit = unpacked_limit(path.stat().st_size, max_ratio, max_file_bytes) if compression else None
    total = 0
    with _open(path, compression) as stream:
        while chunk := stream.read(CHUNK):
            if not total:
                if chunk.startswith(UTF16):
                    raise UnreadableFile("is UTF-16, UTF-8 was expected; convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW")
                chunk = chunk.removeprefix(UTF8_MARK)
            total += len(chunk)
            if limit is not None and total > limit:
                raise refuse_bomb(limit)
            yield chunk


def open_file(path: Path) -> pa.OSFile:
    """The file's bytes; its name need not be UTF-8."""
    return pa.OSFile(os.fsencode(path), "rb")


def _open(path: Path, compression: tuple[str, bytes] | None) -> pa.NativeFile:
    raw = open_file(path)
    if compression is None:
        return raw
    name, magic = compression
    if raw.read(len(magic)) != magic:
        raise UnreadableFile(f"is not {name}, though its name ends in {path.suffix}; rename it, or copy it again")
    raw.seek(0)
    return pa.CompressedInputStream(raw, name)


def lines(parts: Iterable[bytes], limit: int) -> Iterator[tuple[int, bytes, str | None]]:
    """(number from 1, bytes without the LF, None) per line; lines end at LF only.

    A line above `limit` bytes comes as (number, SHA-256 digest of the line, "row_too_large"): it is passed over
    while it is read, so that memory stays within `limit` and one chunk.
    """
    number, held, size = 1, [], 0
    digest: hashlib._Hash | None = None
    for part in parts:
        first, *rest = part.split(b"\n")
        held.append(first)
        size += len(first)
        if size > limit:
            digest = digest or hashlib.sha256()
            for piece in held:
                digest.update(piece)
            held.clear()
        for following in rest:
            yield (number, digest.digest(), "row_too_large") if digest else (number, b"".join(held), None)
            number, held, size, digest = number + 1, [following], len(following), None
            if size > limit:
                digest, held = hashlib.sha256(following), []
    if digest or size:
        yield (number, digest.digest(), "row_too_large") if digest else (number, b"".join(held), None)
