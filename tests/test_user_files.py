"""What lies around a run is the user's: a run never clears it, never reads itself, and tries again what it could not read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from curate import sources
from curate.cli import main
from curate.errors import UserMistake
from curate.ingest import files, find
from curate.verify import verify

A = ["one hen sat on her eggs", "two hens sat on their eggs", "a fox came by at night"]
B = ["moss grows on old stones", "the fern unrolls in spring", "an oak lives for long"]


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def two(project):
    project.file("a.jsonl", *A)
    project.file("b.jsonl", *B)
    project.recipe()
    return project


def test_a_folder_that_is_no_run_is_left_as_it_is(two):
    mine = two.folder / "mine"
    for name in ("corpus/pool.parquet", "tmp/notes.txt", "dataset", ".secrets.deadbeef", "run.json"):
        path = mine / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"theirs": 1}')
    before = content(mine)
    with pytest.raises(UserMistake, match="no run folder and holds other files"):
        two.run("mine")
    assert content(mine) == before


def test_a_folder_whose_name_is_no_unicode_is_refused_before_anything_is_made(two, capfd):
    with pytest.raises(SystemExit) as ended:
        main(["run", str(two.folder / "recipe.yaml"), "--engine", "inline", "--run-dir", os.fsdecode(bytes(two.folder / "r\udcff"))])
    assert ended.value.code == 2 and "⟨U+DCFF⟩: the name is not Unicode" in capfd.readouterr().err
    assert {path.name for path in two.folder.iterdir()} == {"data", "recipe.yaml"}


def test_a_run_json_of_somebody_else_is_left_as_it_is(two):
    (two.folder / "mine").mkdir()
    (two.folder / "mine" / "run.json").write_text('{"lr": 1}')
    with pytest.raises(UserMistake, match="no run folder"):
        two.run("mine")
    assert (two.folder / "mine" / "run.json").read_text() == '{"lr": 1}'


def test_a_file_that_was_never_read_does_not_stay_when_it_vanishes(two, monkeypatch):
    two.recipe(refresh={"on_vanish": "keep"})
    read = files._records

    def refused(settings, file):
        if file.name == "b.jsonl":
            raise PermissionError(13, "Permission denied", file.path)
        return read(settings, file)

    monkeypatch.setattr(files, "_records", refused)
    assert two.run(refresh=True)["exit_code"] == 3
    (two.data / "b.jsonl").unlink()
    assert two.run(refresh=True)["exit_code"] == 0


def test_a_new_an_empty_and_a_planned_folder_take_a_run_and_so_does_one_that_lost_its_facts(two):
    (two.folder / "empty").mkdir()
    (two.folder / "empty" / ".gitkeep").touch()
    (two.folder / "empty" / "plan.json").touch()
    assert two.run("empty")["exit_code"] == 0
    (two.folder / "empty" / "run.json").unlink()
    assert two.run("empty")["executed"] == 0


def test_a_run_does_not_read_what_it_wrote(two):
    two.recipe(ingest={"path": f"{two.folder}/**/*.jsonl"})
    first = two.run("data/run")
    (two.folder / "data" / "run" / "report" / "left.jsonl").write_text('{"text": "of the run"}\n')
    again = two.run("data/run")
    assert first["rows_in"] == again["rows_in"] == 6 and again["executed"] == 0
    (two.folder / "linked").symlink_to(two.folder / "data" / "run")
    two.recipe(ingest={"path": f"{two.folder}/linked/*/*.jsonl"})
    with pytest.raises(UserMistake, match="is what this run itself writes"):
        two.run("data/run")
    (two.folder / "data" / "run" / "mine.jsonl").write_text('{"text": "put there by hand"}\n')
    two.recipe(ingest={"path": f"{two.folder}/**/*.jsonl"})
    assert two.run("data/run")["rows_in"] == 7


@pytest.mark.parametrize("left", ["tmp", "lost+found", ".run.json.0a1b2c3d", "..lock.json.0a1b2c3d"])
def test_what_a_death_before_the_first_record_leaves_hinders_no_run(two, left):
    run = two.folder / "run"
    run.mkdir()
    (run / left).touch() if left.startswith(".") else (run / left).mkdir()
    assert two.run()["exit_code"] == 0


def test_a_file_touched_while_it_is_read_stays_when_it_vanishes_later(two, monkeypatch):
    """Its rows were read; that it is looked at once more must not make them another file's."""
    two.recipe(refresh={"on_vanish": "keep", "most_recomputed": 0})
    read = files._records

    def touched(settings, file):
        if file.name == "b.jsonl":
            os.utime(file.path)
        return read(settings, file)

    with monkeypatch.context() as now:
        now.setattr(files, "_records", touched)
        two.run(refresh=True)
    assert two.run(refresh=True)["rows_in"] == 6
    (two.data / "b.jsonl").unlink()
    assert two.run(refresh=True)["rows_in"] == 6


@pytest.mark.parametrize("refresh", [False, True])
def test_what_could_not_be_read_for_a_passing_reason_is_read_the_next_time(two, monkeypatch, refresh):
    if refresh:
        two.run(refresh=True)
        two.file("b.jsonl", *B, "a new row, so that the file is read again")
    read = files._records

    def refused(settings, file):
        if file.name == "b.jsonl":
            raise PermissionError(13, "Permission denied", file.path)
        return read(settings, file)

    with monkeypatch.context() as now:
        now.setattr(files, "_records", refused)
        assert two.run(refresh=refresh)["exit_code"] == 3
    facts = two.run(refresh=refresh)
    assert facts["exit_code"] == 0 and facts["rows_in"] == 6 + refresh
    assert two.run(refresh=refresh)["executed"] == 0


def test_a_digest_that_could_not_be_taken_is_taken_the_next_time(two, monkeypatch):
    with monkeypatch.context() as now:
        for place in (sources, files):
            name = "sha256_file" if place is sources else "_records"
            now.setattr(place, name, lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        assert two.run()["exit_code"] == 3
    facts = two.run()
    assert facts["exit_code"] == 0 and facts["rows_in"] == 6


def test_a_file_that_is_damaged_is_not_read_every_time(two):
    (two.data / "c.jsonl.gz").write_bytes(b"\x1f\x8bno gzip")
    assert two.run()["exit_code"] == 3
    assert two.run()["executed"] == 0


def test_a_file_that_was_another_while_it_was_read_is_read_again(two, monkeypatch):
    path, read = two.data / "b.jsonl", files._records
    own, stat = path.read_bytes(), path.stat()

    def swapped(settings, file):
        if file.name == "b.jsonl":
            path.write_bytes(own.replace(b"moss", b"mist"))
        return read(settings, file)

    with monkeypatch.context() as now:
        now.setattr(files, "_records", swapped)
        two.run()
    path.write_bytes(own)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    two.run()
    assert {row["text"] for row in two.published()} == {*A, *B}


def test_behind_a_wildcard_a_folder_that_cannot_be_listed_is_refused(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jsonl").write_text('{"text": "a"}\n')
    names = [file.name for file in find.find_files(files.Ingest(path=f"{tmp_path}/*/*.jsonl"))]
    assert names == ["a/x.jsonl", "b/x.jsonl"]
    listing = Path.iterdir

    def refused(folder):
        if folder.name == "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return listing(folder)

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(UserMistake, match="b: cannot be listed"):
        find.find_files(files.Ingest(path=f"{tmp_path}/*/*.jsonl"))


def test_wildcards_find_what_pathlib_finds(tmp_path):
    for name in ("x.jsonl", "a/x.jsonl", "a/b/x.jsonl", "a/b/y.csv", "c/b/z.jsonl", "c/.h/x.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text\na\n")
    for pattern in ("*.jsonl", "*/*.jsonl", "**/*.jsonl", "a/**/x.jsonl", "?/b/*", "[ac]/b/[xz].jsonl", "**/b/*.jsonl"):
        found = {Path(file.path) for file in find.find_files(files.Ingest(path=f"{tmp_path}/{pattern}"))}
        expected = {path for path in tmp_path.glob(pattern) if path.is_file() and not any(part.startswith(".") for part in path.parts)}
        assert found == expected and found, pattern


def test_files_of_other_kinds_in_a_folder_are_told(two):
    for name in ("c.jsonl.bz2", "d.txt", "README.md", ".hidden.txt"):
        (two.data / name).write_text("x")
    assert two.run()["remarks"] == ["ingest: 2 files of other kinds were passed over: c.jsonl.bz2, d.txt"]
    two.recipe(ingest={"path": f"{two.data}/*.jsonl"})
    assert two.run()["remarks"] == []


@pytest.mark.parametrize("path", ["~nobody-of-that-name/x", "x" * 300, ""])
def test_a_path_that_cannot_be_is_the_users_mistake(project, path):
    project.recipe(ingest={"path": [path]})
    with pytest.raises(UserMistake):
        project.run()


def test_kept_columns_may_be_called_as_a_verdicts_fields_are(project):
    rows = [{"text": text, "value": number, "step": "first"} for number, text in enumerate(A)]
    project.file("a.jsonl", *rows, rows[0])
    project.recipe(ingest={"keep": ["value", "step"]})
    project.run()
    assert {(row["value"], row["step"]) for row in project.published()} == {(number, "first") for number in "012"}
    assert list(verify(project.folder / "run")) == []


def test_a_dataset_without_row_ids_is_whole(two):
    two.recipe(publish={"leave_out": ["row_id"]})
    two.run()
    assert list(verify(two.folder / "run")) == []


def test_a_folder_without_the_right_to_write_is_no_error_of_ours(two, monkeypatch, capsys):
    import curate.pipeline

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", "/runs/.lock")

    monkeypatch.setattr(curate.pipeline, "execute", refused)
    with pytest.raises(SystemExit) as end:
        main(["run", str(two.path)])
    said = capsys.readouterr().err
    assert end.value.code == 2 and "/runs/.lock: Permission denied" in said and "please report" not in said


@pytest.mark.parametrize("row", ["a.jsonl:³", "a.jsonl:99999999999999999999999"])
def test_a_line_that_is_no_line_is_not_found(two, row):
    two.run()
    with pytest.raises(UserMistake):
        two.ledger().find(row)
