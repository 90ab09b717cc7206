"""The report: it says what the facts say, it is whole in itself, and no text from a corpus comes alive in it."""

from __future__ import annotations

import base64
import hashlib
import random
import re
import time
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from curate.report.page import (
    Batch,
    CardLine,
    Cluster,
    Counts,
    Drift,
    Drop,
    Facts,
    Histogram,
    Identity,
    Measure,
    Moved,
    Pair,
    Quarantined,
    Sample,
    Source,
    Stability,
    Step,
    render,
)
from curate.report.visible import visible

PAYLOADS = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "</style><script>alert(3)</script>",
    "</title><script>alert(4)</script>",
    "</pre></details><img src=x onerror=alert(5)>",
    '"><svg onload=alert(6)>',
    "'><body onload=alert(7)>",
    '" onmouseover="alert(8)" x="',
    "<iframe src=javascript:alert(9)></iframe>",
    '<a href="javascript:alert(10)">read on</a>',
    "<math><mtext></p><style><img src=x onerror=alert(11)></style>",
    "<!--><script>alert(12)</script>-->",
    "{{ facts.__class__ }}{% raw %}<script>alert(13)</script>",
    "]]><script>alert(14)</script>",
    '<meta http-equiv="refresh" content="0;url=https://example.invalid/">',
    "<base href=https://example.invalid/><form action=/x><input autofocus onfocus=alert(16)>",
    "invoice\u202efdp.exe \u2066hidden\u2069 \u200bwidth",
    "\x1b[31mred\x1b[0m \x07 \x9b2J",
    "nul\x00byte \ud800 lone surrogate",
    "\ufeff\u2028<link rel=stylesheet href=//example.invalid/a.css>&#60;script&#62;",
]


def example() -> Facts:
    """A recovery run of 22,000 rows, as a real one would be told."""
    draw = random.Random(0)
    dropped = {
        "too_short": 212,
        "not_english": 96,
        "near_duplicate": 1893,
        "exact_duplicate": 241,
        "empty_response": 34,
        "over_budget": 15_684,
        "length_ratio": 61,
        "changed_meaning": 118,
        "replaced": 212,
    }
    counts = Counts(
        22_000,
        3_838,
        dropped,
        generated=420,
        kept_generated=229,
        quarantined=31,
        files_quarantined=1,
        tokens_in=4_812_004,
        tokens_kept=802_118,
        token_unit="response tokens",
        seconds=412.3,
    )
    road = (
        Step("ingest", "Read the files, repair the text, give every row an identity.", 22_000, 0, {}, 31, 0, 23, 0, 1.2),
        Step(
            "language_and_length",
            "Rules of thumb on language and length.",
            21_969,
            31,
            {"too_short": 212, "not_english": 96},
            0,
            0,
            23,
            0,
            0.9,
        ),
        Step(
            "near_dedup",
            "Keep one row of each group of near-equal texts.",
            21_969,
            31,
            {"near_duplicate": 1893, "exact_duplicate": 241},
            0,
            0,
            0,
            23,
            2.2,
        ),
        Step("embed", "Turn each prompt into a vector of 384 numbers.", 19_835, 2165, {}, 0, 0, 0, 23, 0.0),
        Step("cluster", "Group prompts that ask for the same skill.", 19_835, 2165, {}, 0, 0, 1, 0, 9.8),
        Step("degradation", "Measure how much pruning hurt the model on each row.", 19_835, 2165, {}, 0, 0, 23, 0, 371.0),
        Step("response", "Rows without an answer teach nothing.", 19_835, 2165, {"empty_response": 34}, 0, 0, 23, 0, 0.1),
        Step("rewrite", "Let the original model rewrite the answers of weak rows.", 420, 21_580, {}, 0, 420, 4, 0, 18.0),
        Step(
            "gates",
            "Refuse rewritten rows that changed length or meaning.",
            420,
            22_000,
            {"length_ratio": 61, "changed_meaning": 118},
            0,
            0,
            4,
            0,
            1.1,
        ),
        Step(
            "select",
            "Spend the budget: more where the damage is larger.",
            22_389,
            31,
            {"over_budget": 15_684, "replaced": 212},
            0,
            0,
            27,
            0,
            0.6,
        ),
    )
    meanings = {
        "over_budget": ("select", "Its cluster's budget was spent on rows with more damage", 0.21, 0.34),
        "near_duplicate": ("near_dedup", "Nearly the same text as a row that was kept", 0.91, 0.8),
        "exact_duplicate": ("near_dedup", "The same text as a row that was kept", 1.0, None),
        "too_short": ("language_and_length", "Fewer than 20 characters", 11.0, 20.0),
        "not_english": ("language_and_length", "Probably not English", 0.31, 0.65),
        "empty_response": ("response", "The answer is empty", None, None),
        "length_ratio": ("gates", "The rewritten answer is much longer or shorter", 3.4, 2.0),
        "changed_meaning": ("gates", "The rewritten answer says something else", 0.52, 0.7),
        "replaced": ("select", "A rewritten row took its place", None, None),
    }
    drops = tuple(
        Drop(meanings[rule][0], rule, count, *meanings[rule][1:], example="Write a short story about a fox who learns to read.")
        for rule, count in dropped.items()
    )

    def bell(centre: float, width: float, rows: int) -> list[float]:
        return [draw.gauss(centre, width) for _ in range(rows)]

    def histogram(column: str, keep: list[float], drop: list[float], low: float, high: float, **rest) -> Histogram:
        bins = 32
        edges = tuple(low + (high - low) * i / bins for i in range(bins + 1))

        def count(values: list[float]) -> tuple[int, ...]:
            return tuple(sum(edges[i] <= v < edges[i + 1] for v in values) for i in range(bins))

        return Histogram(column, edges, count(keep), count(drop), **rest)

    subjects = [
        "write story poem character",
        "python function list return",
        "translate sentence french",
        "sum number solve equation",
        "email letter polite",
        "recipe cook minutes",
        "history war century",
        "health doctor symptoms",
        "classify sentiment label",
        "summarise article",
        "sql table query",
        "travel city visit",
    ]
    clusters, points = [], []
    for c, label in enumerate(subjects):
        rows = draw.randint(600, 3000)
        budget = draw.randint(120, 500)
        clusters.append(Cluster(c, label, rows, rows * 214, draw.uniform(0.08, 0.61), budget, budget - draw.randint(0, 2), budget - 1))
        cx, cy = draw.uniform(-1, 1), draw.uniform(-1, 1)
        points += [(draw.gauss(cx, 0.11), draw.gauss(cy, 0.11), c, draw.random() < 0.18) for _ in range(160)]
    samples = tuple(
        Sample(
            f"Question: how would you explain photosynthesis to a child of {i + 5}?\n\nAnswer: Plants eat light. They take water from the soil "
            "and air from above, and with the sun's help they make sugar of it.",
            side,
            "damage",
            0.34 + (0.004 if side else -0.004) * (i + 1),
            0.34,
            f"{i:02d}c41f7e9ab2",
            f"alpaca.jsonl:{1200 + i}",
        )
        for i in range(3)
        for side in (True, False)
    )
    return Facts(
        run="recovery-smollm2",
        counts=counts,
        road=road,
        pipeline="recovery",
        dataset="runs/recovery-smollm2/dataset",
        drops=drops,
        quarantine=tuple(Quarantined("pool/dolly-15k.jsonl", 41 + 97 * i, "broken_json" if i % 3 else "empty_text") for i in range(31)),
        sources=(Source("alpaca", 12_000, 1_802, 371_200), Source("dolly", 7_400, 1_411, 301_918), Source("oasst", 2_600, 625, 129_000)),
        scores=(
            histogram(
                "damage",
                bell(0.44, 0.09, 3800),
                bell(0.2, 0.1, 16000),
                -0.1,
                0.8,
                threshold=0.34,
                baseline=0.23,
                baseline_name="random pick, mean",
                meaning="Divergence of the pruned model from the original, per answer token (nats).",
            ),
            histogram("response_tokens", bell(210, 60, 3800), bell(190, 90, 16000), 0, 520, meaning="Length of the answer."),
            histogram(
                "perplexity",
                bell(11, 3, 3800),
                bell(14, 6, 16000),
                0,
                40,
                threshold=32.0,
                meaning="Of the answer, under the original model.",
            ),
        ),
        clusters=tuple(clusters),
        budget_unit="response tokens",
        map=tuple(points),
        cluster_measures=(
            Measure("clusters found", 12, "k-means, chosen by silhouette", 9, "From the largest gap between eigenvalues."),
            Measure("eigengap", 0.083, "same vectors, shuffled columns", 0.004, "How clearly that number stands out."),
            Measure("agreement with k-means", 0.71, "two k-means seeds", 0.83, "Adjusted Rand index: 1 is the same grouping, 0 is chance."),
        ),
        samples=samples,
        generated=(
            Pair(
                "Plants need light.",
                "Plants turn light, water and carbon dioxide into sugar and oxygen.",
                True,
                "all gates passed",
                "SmolLM2-135M-Instruct, rewrite",
                "77ab01",
            ),
            Pair(
                "List three primary colours.",
                "Colours are fun! Here is a poem about colours instead.",
                False,
                "changed_meaning 0.52, at least 0.7",
                "SmolLM2-135M-Instruct, rewrite",
                "91cc20",
            ),
        ),
        filter_measures=(Measure("AUC on held-out rows", 0.87, "length alone", 0.61, "1 is perfect, 0.5 is a coin."),),
        identities=(
            Identity(
                "model", "HuggingFaceTB/SmolLM2-135M-Instruct", "sha256:5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c"
            ),
            Identity("library", "torch", "2.13.0+cpu"),
            Identity("seed", "run", "7"),
        ),
        recipe="pipeline: recovery\nseed: 7\nsources:\n  - name: alpaca\n    path: pool/alpaca.jsonl\n",
    )


def line(key: str, **changes) -> CardLine:
    """A measure of the card that lies below the random subsets."""
    told = CardLine(key, key, "What it says.", "narrower", True, 105.3, (101.0, 109.6), 120.5, (112.5, 128.4), 140.3, 695, 43_071)
    return replace(told, **changes)


def hostile(payload: str) -> Facts:
    """The payload in every text field."""
    counts = Counts(10, 6, {payload: 3}, quarantined=1, tokens_in=9, tokens_kept=5, token_unit=payload)
    return Facts(
        run=payload,
        counts=counts,
        road=(Step(payload, payload, 10, 0, {payload: 3}, 1),),
        pipeline=payload,
        dataset=payload,
        drops=(Drop(payload, payload, 3, payload, 1.0, 2.0, payload),),
        quarantine=(Quarantined(payload, 3, payload),),
        sources=(Source(payload, 10, 6, 5),),
        scores=(Histogram(payload, (0.0, 1.0, 2.0), (1, 5), (3, 0), payload, 0.5, 0.7, payload),),
        clusters=(Cluster(0, payload, middle=(("id", payload),)),),
        stability=Stability(0.4, 0.5, payload),
        card=(line("vendi", name=payload, meaning=payload, said=payload),),
        card_rows=(6, 10),
        drifts=(Drift(payload, 9, True, payload, (Measure(payload, 1.0, payload, 0.5, payload),), (Moved(0, 0.1, 0.2, 0.3),)),),
        budget_unit=payload,
        cluster_measures=(Measure(payload, 1.0, payload, 0.5, payload),),
        map=((0.0, 0.0, 0, True), (1.0, 1.0, 1, False)),
        samples=(Sample(payload, True, payload, 1.0, 0.5, payload, payload),),
        batches=(Batch(payload, 9, 2, 1, ((payload, payload, 7),), ((payload, payload, 0.5, None, True),), payload),),
        recycled=((payload, 2),),
        generated=(Pair(payload, payload, False, payload, payload, payload),),
        filter_measures=(Measure(payload, 1.0, payload),),
        identities=(Identity(payload, payload, payload),),
        recipe=payload,
    )


def test_the_report_says_what_passed_why_not_and_which_batch_is_a_template():
    measures = (("opening", "texts that begin alike", 0.6, 0.01, True), ("separable", "AUC", 0.9, None, False))
    batch = Batch("distil m", 20, 5, 3, (("gate", "new_number", 9), ("select", "over_budget", 2)), measures, "in this article we")
    pair = Pair("before", "after", True)
    facts = replace(hostile("x"), batches=(batch, Batch("tidy m", 4, 0, 0)), recycled=(("below_filter_percentile", 4),), generated=(pair,))
    text = " ".join(" ".join(Page(render(facts)).texts).split())
    assert "Alarm: opening" in text and "in this article we" in text and "Yes, by opening" in text
    assert "gate new_number 9, select over_budget 2" in text and "5, 25.0 %" in text
    assert "Of the 5 rows that passed, 4 (80.0 %) have a source that was left out: below_filter_percentile 4" in text


class Page(HTMLParser):
    """What a browser would see: tags, attributes, and the texts between."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def shape(facts: Facts) -> list[tuple[str, tuple[str, ...]]]:
    return [(tag, tuple(sorted(attrs))) for tag, attrs in Page(render(facts)).tags]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_payload_adds_a_tag_or_an_attribute(payload):
    assert shape(hostile(payload)) == shape(hostile("harmless"))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_every_payload_can_be_read_as_text(payload):
    page = Page(render(hostile(payload)))
    assert " ".join(visible(payload).split()) in page.text


def test_the_page_has_nothing_that_could_run_or_call_out():
    page = Page(render(example()))
    for tag, attrs in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "link", "base", "form", "img"}
        for name, value in attrs.items():
            assert not name.startswith("on") and name not in {"style", "src", "srcset", "action"}
            assert name != "href" or (value or "").startswith("#")
    assert "url(" not in render(example()) and "@import" not in render(example())


def test_the_policy_allows_the_one_style_sheet_and_nothing_else():
    html = render(example())
    style = html.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(attrs["content"] for tag, attrs in Page(html).tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert html.count("<style>") == 1


def test_the_first_screen_answers_what_went_in_came_out_and_why():
    text = Page(render(example())).text.split("The road from raw rows")[0]
    assert "3,838 of 22,420 rows were kept (17.1 %)" in text
    assert "22,000 read + 420 generated = 3,838 kept + 18,551 dropped + 31 quarantined" in text
    assert "1 whole file could not be read" in text
    assert "Nearly the same text as a row that was kept near_duplicate 1,893" in text


def test_rows_left_after_each_step_are_told_in_order():
    rows = re.findall(r'<div class="rows n">([\d,]*)</div>', render(example()))
    assert [r for r in rows if r] == ["22,000", "21,969", "21,661", "19,527", "19,493", "19,913", "19,734", "3,838", "3,838"]


def test_counts_that_do_not_balance_are_refused():
    with pytest.raises(ValueError, match="curate verify"):
        Counts(10, 5, {"short": 4})


def test_steps_that_contradict_the_counts_are_refused():
    with pytest.raises(ValueError, match="same verdicts"):
        Facts("x", Counts(10, 5, {"short": 5}), (Step("a", dropped={"long": 5}),))


def test_a_run_with_nothing_but_counts_has_no_empty_section():
    html = render(Facts("bare", Counts(3, 3, {}), (Step("ingest"),)))
    assert re.findall(r'<section id="(\w+)"', html) == ["road", "made"]
    assert "No rule left a row out" in html


def test_the_card_shows_each_measure_on_the_band_of_random_subsets():
    lines = (line("vendi"), line("tree_length", outside=False, said="as by chance", subset=121.0))
    page = Page(render(replace(example(), card=lines, card_rows=(695, 43_071))))
    assert "695 kept rows against the 43,071 read rows" in page.text
    assert "narrower 105.3 120.5 140.3" in page.text and "as by chance 121 120.5 140.3" in page.text
    bands = [place for place, (tag, attrs) in enumerate(page.tags) if attrs.get("class") == "band"]
    dots = [next(attrs for tag, attrs in page.tags[place:] if tag == "circle") for place in bands]
    chance = [next(attrs for tag, attrs in page.tags[place:] if attrs.get("class") == "chance") for place in bands]
    assert [dot["class"] for dot in dots] == ["dropped", "kept"]
    left, right = (
        [float(band["x"]) for band in chance],
        [float(band["x"]) + float(band["width"]) for band in chance],
    )
    assert float(dots[0]["cx"]) < left[0] and left[1] < float(dots[1]["cx"]) < right[1]


def test_a_measure_without_any_spread_can_be_drawn():
    flat = line("clusters_kept", outside=False, subset=1.0, interval=(1.0, 1.0), random=1.0, random_interval=(1.0, 1.0), whole=1.0)
    assert "as by chance" in render(replace(example(), card=(replace(flat, said="as by chance"),)))


def test_a_less_stable_clustering_is_told_above_the_clusters():
    page = render(replace(example(), stability=Stability(0.41, 0.54, "Less stable than k-means: set method: kmeans.")))
    text = Page(page).text
    assert text.index("Found again in resampled rows: 0.41 , k-means 0.54") < text.index("Words that mark it")
    assert "Less stable than k-means: set method: kmeans." in text and 'class="verdict worse"' in page
    assert 'class="verdict worse"' not in render(replace(example(), stability=Stability(0.6, 0.54)))


def test_clusters_without_budgets_of_their_own_are_not_said_to_have_any():
    with_shares = Page(render(example())).text
    assert "Clusters and their budgets" in with_shares and "Damage Budget (" in with_shares
    clusters = tuple(replace(cluster, budget=None, spent=None, damage=None) for cluster in example().clusters)
    without = Page(render(replace(example(), clusters=clusters))).text
    assert "Clusters and their budgets" not in without and "Here none has a budget of its own." in without
    assert "Tokens Rows kept" in without and "Damage" not in without


def test_drift_names_the_cluster_to_look_at():
    drift = Drift("read after the fit", 900, True, "Beyond chance: distance.", (), (Moved(7, 0.05, 0.14, 0.3),))
    text = Page(render(replace(example(), drifts=(drift,)))).text
    assert "read after the fit , 900 rows" in text and "Look first at cluster 7." in text and "7 5.0 % 14.0 % 30.0 %" in text
    assert "Look first" not in Page(render(replace(example(), drifts=(replace(drift, alarm=False, said="Nothing."),)))).text


def test_every_one_of_sixty_clusters_has_its_number_on_the_map():
    draw = random.Random(2)
    points = [(draw.gauss(c % 10, 0.6), draw.gauss(c // 10, 0.6), c, True) for c in range(60) for _ in range(30)]
    html = render(replace(example(), map=tuple(points)))
    assert {int(number) for number in re.findall(r'<text class="place"[^>]*>(\d+)<', html)} == set(range(60))


def test_a_run_of_no_rows_can_be_reported():
    assert "0 of 0 rows were kept" in render(Facts("empty", Counts(0, 0, {}), (Step("ingest", seen=0),)))


def test_long_texts_are_cut_and_say_so():
    facts = replace(example(), samples=(Sample("x" * 50_000, True, "damage", 1.0, 0.5),))
    html = render(facts)
    assert "(+49,100 characters)" in html and "x" * 901 not in html


def test_same_facts_give_the_same_bytes():
    assert render(example()) == render(example())


def test_a_page_of_5000_points_is_written_in_a_blink_and_stays_small():
    draw = random.Random(1)
    facts = replace(example(), map=tuple((draw.random(), draw.random(), i % 30, i % 7 == 0) for i in range(5000)))
    render(facts)
    start = time.perf_counter()
    html = render(facts)
    assert time.perf_counter() - start < 0.5
    assert len(html) < 200_000


def test_every_control_and_every_direction_changing_character_is_shown():
    for code in range(0x110000):
        character = chr(code)
        if character not in "\n\t" and (
            unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
            or unicodedata.bidirectional(character) in {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
        ):
            assert character not in visible(f"a{character}b"), hex(code)


def test_ordinary_writing_of_any_language_is_left_alone():
    for text in ("naïve\tcafé\n", "می‌خواهم", "👩‍💻 🏳️‍🌈", "שלום", "中文", "क्षि"):
        assert visible(text) == text


def test_a_joiner_that_only_hides_something_is_shown():
    assert visible("pass\u200dword") == "pass⟨U+200D⟩word"
