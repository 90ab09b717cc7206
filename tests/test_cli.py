"""What a person at a terminal, or a script, gets from the commands: exit codes, one JSON line, plain words, no traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from curate.cli import main

ROOT = Path(__file__).resolve().parents[1]
SCORERS = ROOT / "tests" / "scorers_for_tests"
EXPECTED = YAML(typ="safe").load((ROOT / "tests" / "dirty_expected.yaml").read_text())
TERMINAL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # everything but the line feed
HOSTILE = "\x1b[31mred\x1b[0m \x07bell \u202egnorw\u202c \x9b2J \r over\x08\x08 \x1b]0;title\x07"


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The object on the last line of stdout, read as strictly as the JSON standard is."""
        return json.loads(self.out.splitlines()[-1], parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A command in this process: exit code, stdout, stderr. Nothing that it prints may be a traceback."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: None)

    def command(*arguments: Any) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments)])
        said = Said(int(end.value.code or 0), *capsys.readouterr())
        assert "Traceback" not in said.out + said.err
        return said

    yield command
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run(project: Any, *changes: str, name: str = "run") -> list[Any]:
    sets = [part for change in changes for part in ("--set", change)]
    return ["run", project.path, "--run-dir", project.folder / name, "--engine", "inline", "--json", *sets]


WORDS = "one two three four five six seven eight nine ten eleven twelve"


@pytest.fixture
def pool(project: Any) -> Any:
    """Ten rows of every fate: kept, exact and near duplicate, bad line, empty response, over budget."""
    rows = [
        {"id": "k1", "instruction": "Name a red fruit.", "output": "An apple or a cherry."},
        {"id": "k2", "instruction": "Name a green fruit.", "output": "A lime."},
        {"id": "x2", "instruction": "Name a  GREEN fruit.", "output": "A lime."},
        {"id": "n1", "instruction": f"Say the numbers in order, {WORDS}.", "output": WORDS + " thirteen"},
        {"id": "n2", "instruction": f"Say the numbers in order, {WORDS}.", "output": WORDS + " thirteen, fine"},
        {"id": "e1", "instruction": "Say nothing at all.", "output": ""},
        {"id": "b1", "instruction": "A long row.", "output": "word " * 200},
        {"id": "k3", "instruction": "Name a river.", "output": "The Nile flows north."},
    ]
    project.file("pool.jsonl", *rows)
    with (project.data / "pool.jsonl").open("a") as file:
        file.write('{"instruction": "cut here\n[1, 2]\n')
    project.recipe(
        scorers=["length", "heuristics"], select={"where": {"words": {"max": 100}}, "budget": 4, "by": "words", "order": "lowest"}
    )
    return project


def test_run_says_in_json_what_became_of_every_row(pool, say):
    said = say(*run(pool))
    assert said.code == 0
    facts = said.json
    assert len(said.out.splitlines()) == 1
    wanted = {"rows_in": 10, "generated": 0, "kept": 4, "kept_generated": 0, "quarantined": 2, "files_quarantined": 0}
    assert {key: facts[key] for key in wanted} == wanted
    assert facts["dropped"] == {"above_words": 1, "empty_response": 1, "exact_duplicate": 1, "near_duplicate": 1}
    assert facts["tokens_kept"] == sum(row["tokens"] for row in pool.published())
    assert (Path(facts["dataset"]).resolve().name, facts["seconds"] > 0) == ("1", True)


def test_status_drops_and_report_tell_of_a_run(pool, say):
    say(*run(pool))
    folder = pool.folder / "run"
    status = say("status", folder, "--json").json
    assert (status["state"], status["counts"]["kept"]) == ("done", 4)
    assert [step["name"] for step in status["steps"]][:2] == ["ingest", "near_dedup"]
    text = say("status", folder).out
    assert "10 rows in" in text
    assert "near_duplicate" in text
    drops = say("drops", folder, "--json").json
    assert drops["counts"] == {
        "above_words": 1,
        "empty_response": 1,
        "exact_duplicate": 1,
        "near_duplicate": 1,
        "bad_json": 1,
        "not_an_object": 1,
    }
    one = say("drops", folder, "--rule", "near_duplicate", "--sample", "1", "--json").json["rows"]
    assert [(row["file"], row["line"], row["step"]) for row in one] == [("pool.jsonl", 4, "near_dedup")]
    wrong = say("drops", folder, "--rule", "nera_duplicate")
    assert (wrong.code, "rules of this run: " in wrong.err, "near_duplicate" in wrong.err) == (2, True, True)
    report = say("report", folder, "--json").json["report"]
    assert "<html" in Path(report).read_text()


@pytest.mark.parametrize(
    ("row", "fate", "rule", "words"),
    [
        ("pool.jsonl:1", "kept", None, ["fate       kept", "id k1", "Name a red fruit."]),
        ("pool.jsonl:2", "dropped", "exact_duplicate", ["near_dedup: exact_duplicate", "survivor", "pool.jsonl:3"]),
        ("pool.jsonl:4", "dropped", "near_duplicate", ["near_dedup: near_duplicate", "survivor", "pool.jsonl:5", "similarity 0."]),
        ("pool.jsonl:6", "dropped", "empty_response", ["heuristics: empty_response"]),
        ("pool.jsonl:7", "dropped", "above_words", ["select: above_words", "against 100"]),
        ("pool.jsonl:9", "quarantined", "bad_json", ["quarantined by ingest: bad_json"]),
    ],
)
def test_explain_says_why(pool, say, row, fate, rule, words):
    say(*run(pool))
    folder = pool.folder / "run"
    (found,) = say("explain", folder, row, "--json").json["rows"]
    assert (found["fate"], found["rule"]) == (fate, rule)
    (same,) = say("explain", folder, found["row_id"][:12], "--json").json["rows"]
    assert same == found
    text = say("explain", folder, row).out
    assert [word for word in words if word not in text] == []


def test_explain_names_every_row_that_shares_an_id(project, say):
    project.file("a.jsonl", "the same text", "another")
    project.file("b.jsonl", "the same text")
    project.recipe()
    say(*run(project))
    row_id = project.column("row_id")[0]
    found = say("explain", project.folder / "run", row_id, "--json").json["rows"]
    assert [(row["file"], row["fate"]) for row in found] == [("a.jsonl", "kept"), ("b.jsonl", "dropped")]
    assert found[1]["twin_is"]["file"] == "a.jsonl"


def test_mistakes_end_in_2_with_one_message(project, say):
    project.file("a.jsonl", "text")
    project.recipe()
    say(*run(project))
    folder = project.folder / "run"
    for arguments, word in (
        (["run", "absent.yaml"], "no such recipe"),
        (["run", project.path, "--engine", "rya"], "use ray or inline"),
        (run(project, "select.budgte=3"), "did you mean 'budget'"),
        (run(project, "ingest.path=/nowhere"), "/nowhere"),
        (run(project, "select.by=quality"), "reads column 'quality', which no step before it writes"),
        (["status", project.folder], "is not a run folder"),
        (["explain", folder, "a.jsonl:7"], "no row 'a.jsonl:7'"),
        (["explain", folder, "zzz"], "no row 'zzz'"),
        (["drops", project.folder / "nothing"], "is not a run folder"),
        (["report", project.folder], "is not a run folder"),
    ):
        said = say(*arguments)
        assert (said.code, word in said.err + said.out) == (2, True), (arguments, said)
    for arguments in (["run"], ["run", project.path, "--no-such"], ["fly"], ["drops", folder, "--sample", "0"]):
        assert say(*arguments).code == 2


def test_json_is_the_last_line_also_of_an_error(project, say):
    project.recipe()
    said = say(*run(project, "select.budgte=3"))
    assert said.json["exit_code"] == said.code == 2
    assert "select.budgte" in said.json["error"]


def test_a_run_above_the_quarantine_limit_is_done_and_ends_in_3(project, say):
    path = project.file("a.jsonl", *[f"row number {row}" for row in range(98)])
    path.write_text(path.read_text() + "{\n[]\n")
    project.recipe(ingest={"quarantine_max": 0.02})
    assert say(*run(project)).code == 0
    said = say(*run(project, "ingest.quarantine_max=0.01"))
    assert (said.code, said.json["quarantined"], said.json["kept"]) == (3, 2, 98)


def test_the_limit_does_not_count_below_100_rows(project, say):
    path = project.file("a.jsonl", "one row")
    path.write_text(path.read_text() + "{\n[]\n")
    project.recipe(ingest={"quarantine_max": 0.0})
    assert say(*run(project)).code == 0


def test_an_unreadable_file_among_others_ends_in_3(project, say):
    project.file("a.jsonl", "one row")
    (project.data / "b.parquet").write_text("<html>404</html>")
    project.recipe()
    said = say(*run(project))
    assert (said.code, said.json["files_quarantined"], said.json["kept"]) == (3, 1, 1)
    assert said.json["problems"][0]["file"] == "b.parquet"


def test_numbers_that_json_does_not_know(project, say):
    project.file("a.jsonl", "not a number", "infinite", "less than everything", "nothing")
    project.recipe(scorers=["extremes"], scorer_path=str(SCORERS))
    assert say(*run(project)).code == 0
    for line in range(1, 5):
        assert say("explain", project.folder / "run", f"a.jsonl:{line}", "--json").json["rows"]
        assert "extreme" in say("explain", project.folder / "run", f"a.jsonl:{line}").out or line == 4


def test_hostile_text_never_reaches_the_terminal(project, say):
    rows = [{"id": HOSTILE + str(row), "text": f"{HOSTILE} {row} {WORDS}", "kept": HOSTILE} for row in range(2)]
    project.file(f"a{HOSTILE.replace('/', '')}.jsonl", *rows, f"{HOSTILE} {WORDS} 0")
    (project.data / f"b{HOSTILE}.parquet").write_text("no parquet")
    project.recipe(ingest={"keep": ["kept"]}, select={"budget": 1})
    folder = project.folder / "run"
    plain = [part for part in run(project) if part != "--json"]
    for said in (
        say(*plain),
        say("status", folder),
        say("drops", folder),
        *(say("explain", folder, row_id) for row_id in set(project.column("row_id"))),
        say(*plain, "--set", f"ingest.path={next(project.data.glob('b*'))}"),  # a mistake that names the file
    ):
        assert TERMINAL.findall(said.out + said.err) == [], said


def test_hostile_names_of_files_and_columns_never_reach_the_terminal(project, say):
    pq.write_table(pa.table({HOSTILE: ["no text"]}), project.data / f"{HOSTILE}.parquet")
    project.recipe()
    said = say(*[part for part in run(project) if part != "--json"])
    assert (said.code, "has no column" in said.err) == (2, True)
    assert TERMINAL.findall(said.out + said.err) == []


# -- every broken file -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_dirty_file_ends_as_expected_twice(name, shared, say, tmp_path):
    expected = EXPECTED[name]
    outcomes = []
    for folder in ("once", "twice"):
        said = say(
            "run",
            ROOT / "configs" / "ingest.yaml",
            "--engine",
            "inline",
            "--run-dir",
            tmp_path / folder,
            "--json",
            "--set",
            f"ingest.path={shared / 'data' / 'dirty' / name}",
        )
        facts = {key: value for key, value in said.json.items() if key not in ("seconds", "run", "dataset", "report")}
        files = {path.relative_to(tmp_path / folder): path.read_bytes() for path in (tmp_path / folder).rglob("*.parquet")}
        outcomes.append((said.code, facts, files))
        if said.code in (0, 3):
            assert (tmp_path / folder / "report" / "index.html").stat().st_size > 1000
            say("status", tmp_path / folder)
            say("drops", tmp_path / folder)
    assert outcomes[0] == outcomes[1]
    code, facts, _ = outcomes[0]
    assert code == expected["exit"]
    assert expected.get("message", "") in facts.get("error", "") + "".join(problem["reason"] for problem in facts.get("problems", ()))
    if code != 2:
        found = {"rows_in": facts["rows_in"], "quarantined": facts["quarantine_rules"], "files_quarantined": facts["files_quarantined"]}
        assert found == {key: expected[key] for key in found}
        assert facts["rows_in"] == facts["kept"] + sum(facts["dropped"].values()) + facts["quarantined"]


# -- from outside: signals and full disks ----------------------------------------------------------------------


def slow_project(project: Any, seconds: float = 0.4) -> None:
    for shard in range(4):
        project.file(f"{shard}.jsonl", *[f"row {row} of shard {shard}" for row in range(3)])
    project.recipe(scorers=["slow"], scorer_path=str(SCORERS), slow={"seconds": 0.0})
    project.run("undisturbed")
    project.recipe(scorers=["slow"], scorer_path=str(SCORERS), slow={"seconds": seconds})


def started(project: Any, engine: str) -> subprocess.Popen[str]:
    """The real command, in a process group of its own, once the slow scorer has committed its first shard."""
    command = [sys.executable, "-m", "curate.cli", "run", str(project.path), "--run-dir", "run", "--engine", engine, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=project.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list((project.folder / "run" / "stages" / "slow").glob("*.record")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.slow)])
def test_ctrl_c_stops_politely_and_the_run_goes_on_later(project, engine):
    slow_project(project, 0.4 if engine == "inline" else 2.0)
    process = started(project, engine)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert json.loads(out.splitlines()[-1])["exit_code"] == 130
    assert ("Traceback" in out + err, "run the same command to go on" in err) == (False, True)
    assert json.loads((project.folder / "run" / "run.json").read_text())["state"] == "stopped"
    assert 0 < project.run()["executed"] < 6 * 4 + 1
    assert project.tree() == project.tree("undisturbed")


def test_a_second_ctrl_c_stops_at_once(project):
    slow_project(project, 30.0)
    project.recipe(scorers=["slow"], scorer_path=str(SCORERS), slow={"seconds": 30.0})
    command = [sys.executable, "-m", "curate.cli", "run", str(project.path), "--run-dir", "run", "--engine", "inline"]
    process = subprocess.Popen(command, cwd=project.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (project.folder / "run" / "stages" / "tokens" / "manifest.jsonl").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130


FULL = """
import os
import pyarrow.parquet as pq
left, whole = int(os.environ["FULL_AFTER"]), pq.ParquetWriter.write_table
def write_table(self, *arguments, **options):
    global left
    left -= 1
    if left < 0:
        raise OSError(28, "No space left on device")
    whole(self, *arguments, **options)
pq.ParquetWriter.write_table = write_table
"""


@pytest.mark.parametrize("after", [0, 4, 7, 11, 20], ids=["ingest", "signatures", "decisions", "verdicts", "later"])
def test_a_disk_that_is_full_ends_in_6_and_the_run_goes_on_later(project, tmp_path, after):
    """Every write of Parquet after the given number leaves half a file and errno 28."""
    for shard in range(3):
        project.file(f"{shard}.jsonl", *[f"row {row} of shard {shard}" for row in range(3)])
    project.recipe()
    project.run("undisturbed")
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(FULL)
    environment = {"PYTHONPATH": f"{tmp_path / 'patch'}:{ROOT}", "FULL_AFTER": str(after)}
    done = project.curate(*run(project), env=environment)
    assert done.returncode == 6, done.stderr
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert ("Traceback" in done.stdout + done.stderr, "bytes free" in error, str(project.folder / "run") in error) == (False, True, True)
    project.run()
    assert project.tree() == project.tree("undisturbed")
    assert list((project.folder / "run" / "tmp").iterdir()) == []


@pytest.mark.slow
def test_a_small_real_disk_ends_in_6_and_more_room_mends_it(project):
    for shard in range(4):
        project.file(f"{shard}.jsonl", *[f"row {row} of shard {shard} {os.urandom(40).hex()}" for row in range(300)])
    project.recipe()
    project.run("undisturbed")
    disk = project.folder / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs more rights than this process has")
    try:
        sizes, codes = ["200k", "350k", "500k", "700k", "1m", "2m", "20m"], []
        for size in sizes:
            subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
            done = project.curate(*run(project, name="disk/run"))
            assert "Traceback" not in done.stdout + done.stderr
            codes.append(done.returncode)
            assert codes[-1] in (0, 6), (size, done.stderr)
        assert (codes[0], codes[-1]) == (6, 0)
        assert project.tree("disk/run") == project.tree("undisturbed")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_help_is_quick():
    times = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "curate.cli", "--help"], cwd=ROOT, capture_output=True, check=True)
        times.append(time.perf_counter() - began)
    assert min(times) < 1.0, "0.5 s is the promise on an idle machine; twice that here, for tests share their machine"


def test_the_new_folder_is_named_after_the_recipe(project, say):
    project.file("a.jsonl", "text")
    project.recipe()
    assert say("run", project.path, "--engine", "inline").code == 0
    assert (project.folder / "runs" / "recipe" / "run.json").exists()
    shutil.rmtree(project.folder / "runs")
