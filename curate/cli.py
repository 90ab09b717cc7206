"""The command line. Heavy libraries are imported by the commands that need them, so `--help` is quick."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from curate import studies
from curate.console import AsJson, RunFolder, as_line, say
from curate.errors import CurateError, UserMistake
from curate.said import counts_text, diff_text, drop_line, explain_text, refresh_text, run_text, visible

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="""Decide what to train on: one recipe in, one training set out, and a receipt for every row.

    Begin with:  make quickstart   then   curate status runs/quickstart

    Exit codes: 0 done; 1 internal error, or damage that `verify` found; 2 mistake in the recipe or the input; 3 done, but more rows set aside than
    allowed, a whole file unreadable, or nearly all of a source removed as duplicates; 4 a refresh needs a decision (--accept); 5 another run holds the folder; 6 disk full; 75 endpoint or Ray unavailable, try
    later; 130 stopped on request, resumable.""",
)

# The user's or the machine's: not allowed, read-only, a file for a folder or the other way round, a name too long, a circle of links.
ENVIRONMENT = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
# Options of `run` and `refresh`; `plan` takes `Changes` too.
RunDir = Annotated[Path | None, typer.Option(help="Where the run lives [default: runs/NAME-OF-RECIPE].", show_default=False)]
Changes = Annotated[list[str] | None, typer.Option("--set", metavar="STAGE.FIELD=VALUE", help="Change a setting; may be repeated.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes [default: as many as cores and memory allow].", show_default=False)]
Address = Annotated[str | None, typer.Option(help="A running Ray cluster to use.", show_default=False)]
ShardTimeout = Annotated[
    float | None,
    typer.Option(help="ray: seconds after which a worker that has not finished its shard counts as hanging.", show_default=False),
]
StallTimeout = Annotated[
    float, typer.Option(help="Seconds after which a run in which no shard has ended says where it hangs, and ends; 0: never.", min=0)
]


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file; configs/ holds some.", show_default=False)],
    run_dir: RunDir = None,
    engine: Annotated[
        str, typer.Option(help="ray: actor pools on all cores or a cluster. inline: this process, for tests and small data.")
    ] = "ray",
    changes: Changes = None,
    workers: Workers = None,
    address: Address = None,
    shard_timeout: ShardTimeout = None,
    stall_timeout: StallTimeout = 10_800,
    as_json: AsJson = False,
) -> None:
    """Run a recipe, or finish an interrupted run: only what is missing or changed is computed.

    Example:  curate run configs/recovery.yaml --set select.budget=100000 --run-dir runs/small
    """
    from curate.pipeline import execute

    facts = execute(
        recipe,
        run_dir,
        engine,
        changes or [],
        workers=workers,
        address=address,
        shard_timeout=shard_timeout,
        stall_timeout=stall_timeout,
        progress=True,
    )
    say(facts, as_json, run_text(facts))
    raise typer.Exit(facts["exit_code"])


@app.command()
def refresh(
    recipe: Annotated[Path, typer.Argument(help="The recipe of the run.", show_default=False)],
    run_dir: RunDir = None,
    accept: Annotated[bool, typer.Option("--accept", help="Do what an earlier refresh has asked about (exit code 4).")] = False,
    refit: Annotated[bool, typer.Option("--refit", help="Fit the models anew on all rows; everything that reads them runs again.")] = False,
    engine: Annotated[str, typer.Option(help="ray or inline, as in `curate run`.")] = "ray",
    changes: Changes = None,
    workers: Workers = None,
    address: Address = None,
    shard_timeout: ShardTimeout = None,
    stall_timeout: StallTimeout = 10_800,
    as_json: AsJson = False,
) -> None:
    """Bring a run up to date with its source files: only new and changed ones are read, models stay as they were fitted, decisions are made again.

    The next version is published beside the last one, in one step; CHANGES.md in it says which rows entered and left, and why. Made for a schedule:
    it may be called at any time, twice or late, and with --json ends in one line that a scheduler can read. configs/schedules/ holds examples.

    Example:  curate refresh configs/pretraining.yaml --json
    """
    from curate.pipeline import execute

    facts = execute(
        recipe, run_dir, engine, changes or [], workers=workers, address=address, shard_timeout=shard_timeout, stall_timeout=stall_timeout, progress=True,
        refresh=True, accept=accept, refit=refit,
    )  # fmt: skip
    say(facts, as_json, f"{run_text(facts)}\n{refresh_text(facts['refresh'])}")
    raise typer.Exit(facts["exit_code"])


@app.command()
def plan(
    recipe: Annotated[Path, typer.Argument(help="The recipe of the run.", show_default=False)],
    run_dir: Annotated[
        Path | None, typer.Option(help="Where the run lives, or will [default: runs/NAME-OF-RECIPE].", show_default=False)
    ] = None,
    changes: Changes = None,
    workers: Annotated[
        int | None, typer.Option(help="Worker processes to reckon with [default: cores].", show_default=False, min=1)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a run or a refresh would cost: some hundred rows go through the recipe, in this process, and are scaled up with an interval.

    No row is generated and no endpoint is asked; after the run the estimate is set against what it took.
    Example:  curate plan configs/pretraining.yaml --set ingest.path=crawl/
    """
    from curate import plan as plans
    from curate import recipe as recipes
    from curate.pipeline import run_folder_of

    checked = recipes.load(recipe, changes or [])
    found = plans.plan(checked, run_folder_of(recipe, run_dir), workers or os.cpu_count() or 1)
    say(found, as_json, plans.text(found))


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="A run folder, or one of its versions: RUN@3.", show_default=False)],
    after: Annotated[str, typer.Argument(help="Another, or another version.", show_default=False)],
    sample: Annotated[int, typer.Option(help="Rows shown for each reason.", min=0)] = 3,
    as_json: AsJson = False,
) -> None:
    """Say what differs between two runs, or two versions of one: settings, counts by rule, rows that entered and left, scores, clusters.

    Example:  curate diff runs/pool@4 runs/pool      or      curate diff runs/cautious runs/bold
    """
    from curate.refresh.compare import compare, state_of

    found = compare(state_of(before), state_of(after), sample)
    say(found, as_json, diff_text(found))


@app.command()
def verify(
    run_folder: RunFolder,
    remove: Annotated[bool, typer.Option("--remove", help="Remove damaged files that the next run can make anew.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read everything that a run has committed, hash it again and count its ledger again; name the first bad byte of what is damaged.

    Exit code 1 where something is; with --remove only where the next run cannot make it anew.

    Example:  curate verify runs/pool      then      curate verify runs/pool --remove && curate run RECIPE
    """
    from curate.ledger import open_run
    from curate.progress import every_few_seconds
    from curate.store import RunLock
    from curate.verify import remove as remove_faults
    from curate.verify import verify as check

    open_run(run_folder)
    read = [0, 0]
    said = every_few_seconds()

    def tell(files: int, size: int) -> None:
        read[:] = files, size
        said(lambda: f"{files:,} files, {size / 1e6:,.0f} MB")

    with RunLock(run_folder):
        faults = list(check(run_folder, tell))
        if remove:
            remove_faults(run_folder, faults)
    exit_code = int(any(not (remove and (fault.remove or fault.remade)) for fault in faults))
    lines = [f"damaged  {visible(fault.at)} {fault.what}{' (removed)' if remove and fault.remove else ''}" for fault in faults]
    lines.append(
        f"{read[0]:,} files, {read[1] / 1e6:,.1f} MB read: {len(faults) or 'nothing'} damaged, {'see above' if faults else 'the ledger balances'}"
    )
    if faults and not remove:
        lines.append("`--remove` removes what the next run can make anew; `curate rollback` goes back to a version that is whole")
    say(
        {"files": read[0], "bytes": read[1], "faults": [vars(fault) for fault in faults], "exit_code": exit_code},
        as_json,
        "\n".join(lines),
    )
    raise typer.Exit(exit_code)


@app.command()
def rollback(
    run_folder: RunFolder,
    to: Annotated[int | None, typer.Option(help="The version to go back to [default: the one before].", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Make an earlier version the published one again, in one step. A refresh with nothing new leaves it so; the next change makes a version after it.

    Example:  curate rollback runs/pool      or      curate rollback runs/pool --to 7
    """
    from curate.ledger import open_run
    from curate.store import RunLock
    from curate.versions import Versions

    open_run(run_folder)
    with RunLock(run_folder):
        was, now = Versions(run_folder).roll_back(to)
    say({"was": was, "version": now}, as_json, f"{run_folder}/dataset is version {now} again; it was {was}")


@app.command()
def status(run_folder: RunFolder, as_json: AsJson = False) -> None:
    """Show what a run has done: its steps, its counts, where its dataset is."""
    from types import SimpleNamespace

    from curate.ledger import open_run
    from curate.progress import did
    from curate.versions import Versions

    ledger = open_run(run_folder)
    facts = {"run": str(run_folder), **ledger.facts}
    lines = [f"{run_folder}: {facts['state']}"]
    for step in facts["steps"]:
        lines.append(f"  {step['name']:<24} {step['rows']:>10,} rows  {did(SimpleNamespace(**step)):<24} {step['seconds']:>8.1f} s")
    lines.append("")
    lines.append(counts_text(facts["counts"]) if facts["counts"] else "  not finished: run the same `curate run` command to go on")
    versions = Versions(run_folder)
    current, there = versions.current(), versions.on_disk()
    facts["versions"] = {"current": current, "on_disk": there, "withdrawn": sorted(versions.withdrawn())}
    if current is not None and len(versions.numbers()) > 1:
        others = ", ".join(str(number) for number in there if number != current)
        lines.append(
            f"  version {current} is published" + (f"; {others} can be gone back to with `curate rollback --to`" if others else "")
        )
    say(facts, as_json, "\n".join(lines))


@app.command()
def explain(
    run_folder: RunFolder,
    row: Annotated[str, typer.Argument(help="A row_id, its first digits, or file:line.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Say what happened to one row and why: origin, fate, every verdict, scores, twin, children.

    Example:  curate explain runs/quickstart 3f9a      or      curate explain runs/quickstart quickstart.jsonl:17
    """
    from curate.ledger import open_run

    ledger = open_run(run_folder)
    found = [ledger.explain(shard, position) for shard, position in ledger.find(row)]
    say({"rows": found}, as_json, "\n\n".join(explain_text(item) for item in found))


@app.command()
def drops(
    run_folder: RunFolder,
    rule: Annotated[str | None, typer.Option(help="Only rows that fell to this rule.", show_default=False)] = None,
    sample: Annotated[int, typer.Option(help="How many rows to show, spread evenly over the run.", min=1)] = 10,
    as_json: AsJson = False,
) -> None:
    """List rows that were left out, with the reason; without --rule also the counts per rule."""
    from curate.ledger import open_run

    ledger = open_run(run_folder)
    counts, found = ledger.some_drops(rule, sample)
    shown = [{"at": f"{shard.name}:{row['position']}", **row} for shard, row in found]
    if rule and not shown:
        known = sorted(ledger.some_drops(None, 1)[0])
        from curate.errors import UserMistake

        raise UserMistake(f"no row fell to rule '{rule}'; rules of this run: {', '.join(known) or 'none'}")
    lines = [f"{count:>8,}  {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])]
    lines += ["", *(drop_line(row) for row in shown)]
    say({"counts": counts, "rows": shown}, as_json, "\n".join(lines))


@app.command()
def report(run_folder: RunFolder, as_json: AsJson = False) -> None:
    """Write the report of a run again (one self-contained HTML file) and say where it is."""
    from curate.ledger import open_run
    from curate.report.facts import write_report

    path = write_report(open_run(run_folder))
    say({"report": str(path)}, as_json, str(path))


for command in (studies.geometry, studies.prune, studies.recover, studies.audit_filter, studies.calibrate_dedup, studies.audit_fairness):
    app.command(command.__name__.replace("_", "-"))(command)


def _watch_signals() -> None:
    """First Ctrl-C or SIGTERM: stop between shards, resumable. Second: at once."""
    from curate.stopping import stop

    def on_signal(number: int, _frame: Any) -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()
        sys.stderr.write("\nstopping after the shards in hand (once more: at once)\n")

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: user mistakes end in one message and their exit code, never in a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    gc.disable()  # while libraries are imported, which makes many objects and no garbage; `execute` turns it on
    _watch_signals()
    try:
        app(arguments, standalone_mode=True)
    except CurateError as error:
        _fail(str(error), error.exit_code, "--json" in arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno not in ENVIRONMENT or not error.filename:
            _internal(error, "--json" in arguments)
        remedy = "check the path, and that you have the right to read and write there"
        _fail(f"{error.filename}: {error.strerror}: {remedy}", UserMistake.exit_code, "--json" in arguments)
    except Exception as error:
        _internal(error, "--json" in arguments)


def _internal(error: Exception, as_json: bool) -> NoReturn:
    """A fault of ours: the trace goes to a file, the user gets what to do."""
    import tempfile
    import traceback

    trace = Path(tempfile.gettempdir()) / f"curate-error-{os.getpid()}.txt"
    trace.write_text(traceback.format_exc(), errors="backslashreplace")
    _fail(f"internal error: {type(error).__name__}: {error}. The details are in {trace}; please report this", 1, as_json)


def _fail(message: str, code: int, as_json: bool) -> NoReturn:
    print(f"curate: {visible(message, 20_000)}", file=sys.stderr, flush=True)
    if as_json:
        print(as_line({"error": message, "exit_code": code}), flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
