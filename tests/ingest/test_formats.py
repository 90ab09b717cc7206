"""Each format: what is a row, what is set aside, what makes a file unreadable."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from curate.errors import UnreadableFile, UserMistake
from curate.ingest import streams


def lines(*texts) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


# -- streams ---------------------------------------------------------------------------------------------------


def test_a_line_of_one_gigabyte_costs_one_row_and_little_memory(read_bytes):
    def pipe():
        yield b'{"text": "before"}\n{"text": "'
        part = b"x" * streams.CHUNK
        for _ in range(1024):
            yield part
        yield b'"}\n{"text": "after"}\n'

    tracemalloc.start()
    found = [(number, rule, len(raw)) for number, raw, rule in streams.lines(pipe(), 10 << 20)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [(1, None, 18), (2, "row_too_large", 32), (3, None, 17)]
    assert peak < 50 << 20


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100])
def test_lines_do_not_depend_on_how_the_bytes_arrive(step):
    data = b"\nab\r\n" + b"y" * 30 + b"\n\nlast"
    parts = [data[i : i + step] for i in range(0, len(data), step)]
    found = list(streams.lines(parts, 10))
    assert found == list(streams.lines([data], 10))
    assert [rule for _, _, rule in found] == [None, None, "row_too_large", None, None]
    assert found[1] == (2, b"ab\r", None) and found[4] == (5, b"last", None)


@pytest.mark.parametrize("name, pack", [("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.compress)])
def test_packed_files_read_like_plain_ones_and_no_cut_goes_unseen(read_bytes, name, pack):
    texts = [f"row {i}" for i in range(40)]
    packed = pack(lines(*texts[:20])) + pack(lines(*texts[20:]))  # two members
    assert read_bytes(name, packed).texts() == texts
    whole = len(pack(lines(*texts[:20])))
    for cut in {1, whole // 2, whole - 1, whole + 5, len(packed) - 1}:
        with pytest.raises(UnreadableFile):
            read_bytes(name, packed[:cut])


def test_an_empty_packed_file_is_cut_not_empty(read_bytes):
    with pytest.raises(UnreadableFile, match="is not gzip"):
        read_bytes("a.jsonl.gz", b"")


def test_a_bomb_stops_at_the_limit(read_bytes, monkeypatch):
    monkeypatch.setattr(streams, "HARMLESS", 1 << 20)
    packed = gzip.compress(b"\n" * (64 << 20))
    with pytest.raises(UnreadableFile, match="max_unpack_ratio"):
        read_bytes("a.jsonl.gz", packed, max_unpack_ratio=100)
    assert read_bytes("a.jsonl.gz", packed, max_unpack_ratio=2000).rows == []


# -- JSON lines ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, rule",
    [
        ('{"text": "a", "n": ' + "9" * 5000 + "}", "number_too_long"),
        ('{"text": "a", "n": ' + "[" * 100_000 + "]" * 100_000 + "}", "nesting_too_deep"),
        ('{"text": "a", "n": ' + "[" * 100_000, "nesting_too_deep"),
        ('{"text": "a", "n": {"k": 1, "k": 2}}', "duplicate_key"),
        ('{"text": NaN}', "wrong_type"),
        ('{"text": "\\ud83d"}', "lone_surrogate"),
        ('{"text": "a", "id": "\\ud83d"}', "lone_surrogate"),
        ('{"text": "tab\there"}', "bad_json"),
        ('\ufeff{"text": "a mark in the middle"}', "bad_json"),
        ('{"text": "' + "x" * 2000 + '"}', "row_too_large"),
        ('{"text": null}', "null_text"),
        ('{"text": "\\u200b"}', "blank_text"),
        ("{}", "missing_text"),
    ],
    ids=lambda value: value[:30],
)
def test_each_oddity_costs_its_own_row(read_bytes, line, rule):
    limit = 2000 if rule == "row_too_large" else 10 << 20
    found = read_bytes("a.jsonl", '{"text": "before"}\n' + line + '\n{"text": "after"}', max_row_bytes=limit)
    assert (found.texts(), found.bad) == (["before", "after"], [(2, rule)])
    assert [row["line"] for row in found.rows] == [1, 2, 3]


@pytest.mark.parametrize("value", ["NaN", "1e400", "[" * 150 + "]" * 150, '"' + "[" * 1000 + '"', "12345678901234567890", "0.1"])
def test_an_unused_value_may_be_odd_and_a_kept_one_is_stored(read_bytes, value):
    line = '{"text": "a", "n": ' + value + "}\n"
    assert read_bytes("a.jsonl", line).texts() == ["a"]
    kept = {"NaN": "NaN", "1e400": "Infinity"}.get(value, value.strip('"'))
    assert read_bytes("a.jsonl", line, keep=("n",)).rows[0]["n"] == kept


@pytest.mark.parametrize("content", ['[{"text": "a"},\n{"text": "b"}]', '[\n{"text": "a"}]', '{\n"text": "a"}'])
def test_a_json_document_is_not_taken_for_lines(read_bytes, content):
    for name in ("a.jsonl", "a.json"):
        with pytest.raises(UnreadableFile, match="not JSON lines"):
            read_bytes(name, content)


def test_no_row_with_the_column_is_the_users_mistake(read_bytes):
    with pytest.raises(UserMistake, match=r"a\.jsonl: has no column .*'body', 'n'.*ingest\.fields"):
        read_bytes("a.jsonl", '{"body": "a"}\n{"n": 1}\n')
    with pytest.raises(UserMistake, match="has no column 'output' in any row"):
        read_bytes("a.jsonl", '{"instruction": "a", "response": "b"}\n')


# -- CSV -------------------------------------------------------------------------------------------------------


def test_csv_cells(read_bytes):
    found = read_bytes("a.csv", '\ufefftext,n\r\n"a ""b""\r\nc",1\r\n\r\nplain,2\r\n" spaced ",3')
    assert found.texts() == ['a "b"\r\nc', "plain", " spaced "]
    assert [row["line"] for row in found.rows] == [2, 5, 6]
    assert read_bytes("a.tsv", "n\ttext\n1\ta, b\n").texts() == ["a, b"]
    assert read_bytes("a.csv.gz", gzip.compress(b"text\na\n")).texts() == ["a"]


def test_an_open_quote_costs_its_own_line_only(read_bytes):
    content = 'n,text\n1,one\n2,"open\n3,three\n4,"a ""quoted"" cell"\n5,x"y\n6,"a" b\n7,"two\nlines"\n8,"again open\n9,nine\n'
    found = read_bytes("a.csv", content)
    assert found.texts() == ["one", "three", 'a "quoted" cell', 'x"y', "two\nlines", "nine"]
    assert found.bad == [(3, "unclosed_quote"), (7, "bad_quoting"), (10, "unclosed_quote")]


def test_csv_bytes_that_are_not_text(read_bytes):
    content = b'n,text\n1,caf\xe9\n2,a\x00b\n3,"two\nl\xffnes"\n4,good\n'
    assert read_bytes("a.csv", content).bad == [(2, "invalid_utf8"), (3, "nul_byte"), (4, "invalid_utf8")]
    assert read_bytes("a.csv", content, invalid_utf8="replace").texts() == ["caf\ufffd", "two\nl\ufffdnes", "good"]


@pytest.mark.parametrize(
    "content", ["text,n\ra,1\rb,2\r", "text,n\na,1\rb,2\r", "text,n\na,1\rb,2\r\n\n", '"text","n"\r"a, or b",1\r"c",2\r']
)
def test_csv_with_the_line_ends_of_old_macintoshes(read_bytes, content):
    with pytest.raises(UnreadableFile, match="carriage return alone"):
        read_bytes("a.csv", content)


def test_csv_with_a_carriage_return_in_a_cell(read_bytes):
    assert read_bytes("a.csv", "text,n\r\na\rb,1\r\nc,2\r\n").texts() == ["a\rb", "c"]
    assert read_bytes("b.csv", "text,n\na\rb\nc,2\n").bad == [(2, "ragged_row")]
    assert read_bytes("c.csv", "text,n\na,1\rb,2\nc,3\n").bad == [(2, "ragged_row")]


def test_csv_header(read_bytes):
    with pytest.raises(UserMistake, match="2 columns called 'text'"):
        read_bytes("a.csv", "text,text\na,b\n")
    with pytest.raises(UserMistake, match="its columns are ' text', 'n'"):
        read_bytes("a.csv", " text,n\na,b\n")


# -- Parquet, Arrow, hub ---------------------------------------------------------------------------------------


def test_a_parquet_bomb_is_refused_in_little_time_and_memory(tmp_path, read):
    path = tmp_path / "bomb.parquet"
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 65_536, pa.int32()), pa.array(["x" * 3_000_000]))
    pq.write_table(pa.table({"text": repeated}), path)  # 200 GB in a file of some KB
    started, before = time.monotonic(), pa.total_allocated_bytes()
    with pytest.raises(UnreadableFile, match="max_unpack_ratio"):
        read(path, shard_bytes="16MB")
    assert time.monotonic() - started < 5
    assert pa.total_allocated_bytes() - before < 500 << 20


def test_a_parquet_row_that_is_not_utf8_costs_itself(tmp_path, read):
    bad = pa.array([b"good", b"caf\xe9", b"fine"]).view(pa.string())
    for name, write in (("a.parquet", pq.write_table), ("a.arrow", write_stream)):
        write(pa.table({"text": bad}), tmp_path / name)
        found = read(tmp_path / name)
        assert (found.texts(), found.bad) == (["good", "fine"], [(2, "invalid_utf8")])
        assert read(tmp_path / name, invalid_utf8="replace").texts() == ["good", "caf\ufffd", "fine"]


def write_stream(table, path):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def write_file(table, path):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("write", [write_stream, write_file])
def test_arrow_files_and_their_cuts(tmp_path, read, write):
    path = tmp_path / "a.arrow"
    write(pa.table({"text": ["one", "two"], "n": [[1], None]}), path)
    assert read(path, keep=("n",)).rows[0]["n"] == "[1]"
    whole = path.read_bytes()
    for cut in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(UnreadableFile):
            read(path)


def test_a_folder_of_save_to_disk_gives_its_data_and_not_its_cache(tmp_path, read):
    import datasets

    data = datasets.Dataset.from_dict({"text": [f"row {i}" for i in range(10)]})
    datasets.DatasetDict({"train": data, "test": data.select(range(2))}).save_to_disk(tmp_path / "saved")
    write_stream(pa.table({"text": ["stale"]}), tmp_path / "saved" / "train" / "cache-1.arrow")
    assert read(tmp_path / "saved").texts() == ["row 0", "row 1", *(f"row {i}" for i in range(10))]
    state = tmp_path / "saved" / "train" / "state.json"
    state.write_text(json.dumps({"_data_files": [{"filename": "../../outside.arrow"}]}))
    with pytest.raises(UserMistake, match="leads out of the folder"):
        read(tmp_path / "saved")


def test_a_hub_address_is_read_through_datasets(tmp_path, read, monkeypatch):
    """A local folder stands in for the hub: `datasets` reads both by the same call."""
    import datasets

    pq.write_table(pa.table({"text": ["one", "two", None]}), tmp_path / "train.parquet")
    asked = []

    def stand_in(name, *, revision, split, streaming):
        asked.append((name, revision, split))
        return load(str(tmp_path), split=split, streaming=streaming)

    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", stand_in)
    found = read("hub:owner/name@abc123:train", shard_rows=2)
    assert asked == [("owner/name", "abc123", "train")]
    assert (found.texts(), found.bad, [shard.num_rows for shard in found.shards]) == (["one", "two"], [(3, "null_text")], [2, 1])
    with pytest.raises(UnreadableFile, match="check name, revision, split"):
        read("hub:owner/name:validation")
    with pytest.raises(UserMistake, match="is not a hub address"):
        read("hub:@x")


# -- shards ----------------------------------------------------------------------------------------------------


def test_shards_are_cut_by_rows_and_by_bytes_and_read_twice_the_same(read_bytes):
    content = lines(*("x" * 100 for _ in range(25)))
    assert [shard.num_rows for shard in read_bytes("a.jsonl", content, shard_rows=10).shards] == [10, 10, 5]
    by_bytes = read_bytes("a.jsonl", content, shard_bytes="1kB")
    assert all(shard.num_rows <= 10 for shard in by_bytes.shards)
    again = read_bytes("a.jsonl", content, shard_bytes="1kB")
    assert all(one.equals(other) for one, other in zip(by_bytes.shards, again.shards, strict=True))
