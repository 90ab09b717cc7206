"""CSV as in RFC 4180: quotes double, cells may hold line breaks; a backslash is a character like any other.

A line break inside quotes is believed only where the whole record then has as many cells as the header.
Otherwise the record's first line alone is set aside and reading goes on at the next line, so that a quote
which is never closed costs its own line and none of those after it.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator

from curate.errors import UnreadableFile
from curate.ingest.record import Record, check_columns
from curate.ingest.settings import Ingest

QUOTED = re.compile(rb'"[^"]*"')
CR_ENDS = "its lines end in a carriage return alone, as on old Macintoshes; convert it: tr '\\r' '\\n' < FILE > NEW"
OPEN_QUOTE = "unexpected end of data"  # the csv module's words for a quote that is still open


def read(settings: Ingest, lines: Iterator[tuple[int, bytes, str | None]], delimiter: str) -> Iterator[Record]:
    """Records of the numbered lines after the header; a record's line is its first one."""
    csv.field_size_limit(max(settings.max_row_bytes, csv.field_size_limit()))  # rows are bounded by ours
    source = _Lines(lines)
    header: list[str] | None = None
    first = True  # of the lines after the header
    while (line := source.take()) is not None:
        number, raw, rule = line
        if rule is None and not raw.strip():
            continue
        cells: list[str] | None = None
        if rule is None:
            cells, rule, raw = _record(raw, source, delimiter, None if header is None else len(header), settings.max_row_bytes)
        if header is None:
            if b"\r" in QUOTED.sub(b"", raw).rstrip(b"\r"):
                raise UnreadableFile(CR_ENDS)
            header = cells or []
            check_columns(settings, header)
            continue
        if first and rule == "ragged_row" and _ends_in_cr(raw, delimiter, len(header)):
            following = [line] if (line := source.take()) else []
            while following and not following[-1][1].strip() and (line := source.take()):
                following.append(line)
            if not any(given.strip() for _, given, _ in following):
                raise UnreadableFile(CR_ENDS)
            source.give_back(following)
        first = False
        repaired = False
        if rule is None and b"\x00" in raw:
            rule = "nul_byte"
        if rule is None and not _is_utf8(raw):
            if settings.invalid_utf8 == "replace":
                cells = [_bytes(cell).decode(errors="replace") for cell in cells or ()]
                repaired = True
            else:
                rule = "invalid_utf8"
        yield Record(number, None, rule, raw) if rule else Record(number, dict(zip(header, cells or (), strict=True)), None, raw, repaired)


def _ends_in_cr(raw: bytes, delimiter: str, width: int) -> bool:
    """Whether a line is several rows of that many cells, divided by carriage returns."""
    parts = QUOTED.sub(b"", raw).rstrip(b"\r").split(b"\r")
    return len(parts) > 1 and all(part.count(delimiter.encode()) == width - 1 for part in parts)


class _Lines:
    """Numbered lines that can be given back."""

    def __init__(self, lines: Iterator[tuple[int, bytes, str | None]]):
        self.lines, self.returned = lines, deque[tuple[int, bytes, str | None]]()

    def take(self) -> tuple[int, bytes, str | None] | None:
        return self.returned.popleft() if self.returned else next(self.lines, None)

    def give_back(self, lines: list[tuple[int, bytes, str | None]]) -> None:
        self.returned.extendleft(reversed(lines))


def _record(raw: bytes, source: _Lines, delimiter: str, width: int | None, limit: int) -> tuple[list[str] | None, str | None, bytes]:
    """(cells, rule, bytes) of the record that begins with this line; takes the further lines that belong to it."""
    cells, rule = _cells(raw, delimiter, width)
    if rule != "unclosed_quote":
        return cells, rule, raw
    taken: list[tuple[int, bytes, str | None]] = []
    size = len(raw)
    while size <= limit and (line := source.take()) is not None:
        taken.append(line)
        if line[2] is not None:
            break
        size += len(line[1]) + 1
        if line[1].count(b'"') % 2:  # only an odd number of quotes can end the quoted cell
            whole = b"\n".join([raw, *(other for _, other, _ in taken)])
            cells, rule = _cells(whole, delimiter, width)
            if rule is None and size <= limit:
                return cells, None, whole
            if rule != "unclosed_quote":
                break
    source.give_back(taken)
    return None, "unclosed_quote", raw


def _cells(raw: bytes, delimiter: str, width: int | None) -> tuple[list[str] | None, str | None]:
    # Bytes that are not UTF-8 pass through as surrogates and are judged when the record is known.
    text = raw.decode(errors="surrogateescape")
    if '"' not in text:
        cells = text.removesuffix("\r").split(delimiter)
    else:
        try:
            rows = list(csv.reader([part + "\n" for part in text.split("\n")], delimiter=delimiter, strict=True))
        except csv.Error as error:
            return None, "unclosed_quote" if str(error) == OPEN_QUOTE else "bad_quoting"
        if len(rows) != 1:
            return None, "bad_quoting"
        cells = rows[0]
    if width is not None and len(cells) != width:
        return None, "ragged_row"
    return cells, None


def _bytes(cell: str) -> bytes:
    return cell.encode(errors="surrogateescape")


def _is_utf8(raw: bytes) -> bool:
    if raw.isascii():
        return True
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
