"""A real corpus that is on every machine with Python: what its documentation says, as instruction rows.

    python -m pipelines.quickstart_corpus OUT_FOLDER [--rows N]

    OUT_FOLDER/pool.jsonl         every docstring that reads as an answer, repeats included
    OUT_FOLDER/documents.jsonl    plain documents (see quickstart_documents.py)
    OUT_FOLDER/quickstart.jsonl   about N of them (1,000), spread evenly over the capabilities, some repeats included
    OUT_FOLDER/examples.jsonl     of each capability a few rows (6) that are in neither: what the model is to be good at

Sources: docstrings of the standard library and of packages that `curate` itself needs (FAMILIES), parsed, never
imported, and the language reference that `help()` prints (`pydoc_data.topics`). A row asks what a module, class,
function or topic is for and holds its signature; the answer is the prose that opens the docstring, up to 700
characters: parameter lists, examples and references are cut off, reStructuredText markup becomes plain text.
`capability` is the family of the module, a known label to hold clusters against.

The same environment gives the same bytes: files in the order of their paths, choices by hash, no clock. A second
call with nothing changed writes nothing.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import sys
import sysconfig
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from pipelines import quickstart_documents

LONGEST_ANSWER = 700  # characters; a 135M model at 512 tokens sees all of it
SHORTEST_ANSWER, FEWEST_WORDS = 40, 7
LONGEST_SIGNATURE = 240
EXAMPLES = 6  # rows of each capability that are set aside as examples
REPEATS = 3  # rows of one set of repeats that may go into the small corpus

# Module or package -> capability. Left out: what has no docstrings worth reading, and tests.
FAMILIES = {
    family: names.split()
    for family, names in {
        "text": "string re difflib textwrap codecs encodings gettext locale html jinja2 pprint reprlib",
        "numbers": "decimal _pydecimal fractions statistics random numbers colorsys hashlib hmac secrets uuid",
        "dates": "datetime calendar zoneinfo _strptime sched dateutil",
        "collections": "collections _collections_abc heapq bisect enum types copy dataclasses weakref graphlib functools operator contextlib queue",
        "files": "pathlib os posixpath ntpath genericpath shutil tempfile glob fnmatch _pyio fileinput filecmp zipfile tarfile gzip bz2 lzma fsspec",
        "formats": "json csv xml plistlib configparser tomllib pickle pickletools shelve dbm netrc mailbox mimetypes quopri base64 wave struct",
        "networking": "socket ssl http urllib email ftplib smtplib imaplib poplib xmlrpc socketserver ipaddress wsgiref webbrowser requests urllib3",
        "concurrency": "asyncio threading multiprocessing concurrent subprocess selectors signal contextvars joblib",
        "debugging": "unittest doctest pdb bdb cmd trace traceback timeit profile cProfile pstats tracemalloc logging warnings",
        "introspection": "ast inspect dis tokenize importlib pkgutil runpy pydoc symtable typing abc modulefinder pyclbr code codeop compileall",
        "command_line": "argparse optparse getopt shlex curses getpass platform sysconfig site venv rich",
        "graphics": "turtle tkinter",
        "arrays": "numpy",
        "tensors": "torch/nn torch/optim torch/utils/data torch/distributions",
        "web_api": "openai",
        "tables": "pyarrow pandas sqlite3",
        "science": "scipy",
        "learning": "sklearn",
        "graphs": "networkx",
    }.items()
}  # fmt: skip
# Names of folders and files that are passed over: tests, copies of other packages, what nobody imports.
NOT_READ = {
    *("test", "tests", "testing", "_testing", "testutils", "conftest", "mock", "__main__", "turtledemo", "idlelib"),
    *("_vendor", "vendor", "externals", "_external", "f2py", "distutils", "_build_utils", "_lib", "array_api_compat", "array_api_extra"),
    *("_dist_ver", "_typing", "_pyinstaller", "ctypeslib"),
}
PUBLIC_NAME = {
    "_pydecimal": "decimal",
    "_pyio": "io",
    "_collections_abc": "collections.abc",
    "posixpath": "os.path",
    "genericpath": "os.path",
}

WHAT = (
    "What does the {kind} `{name}` {of} do?",
    "Explain briefly what `{name}` {of} does.",
    "I came across the {kind} `{name}` {of}. What does it do?",
)
TEMPLATES = {
    "function": (*WHAT, "Describe what this function {of} does.", "Write a docstring for the function below, which is {of}."),
    "method": (*WHAT, "Describe what this method of a class {of} does.", "Write a docstring for the method below; its class is {of}."),
    "property": ("What does the property `{name}` {of} hold?", "Explain the property `{name}` {of}."),
    "class": ("What is the class `{name}` {of}?", "Describe the class `{name}` {of}.", "Write a docstring for the class below, which is {of}."),
    "module": ("What is the Python module `{name}` for?", "Introduce the Python module `{name}` in a few sentences.", "Describe the module `{name}`."),
    "topic": ("Explain this topic of the Python language: {name}.", "In Python, what is there to know about {name}?", "Describe {name}, as Python defines it."),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the corpus; `id` is the place it was read from."""

    id: str
    instruction: str
    input: str
    output: str
    capability: str


# -- from a docstring to an answer ------------------------------------------------------------------------------

# What ends the prose of a docstring: sections (NumPy, Google, Sphinx), fields, directives, doctests.
SECTION = re.compile(
    r"(args|arguments|parameters|params|returns?|raises|yields|examples?|usage|notes?|attributes|methods|see also|references|warnings?|keywords?"
    r"|keyword arguments|inputs?|outputs?|options|requirements|implementation notes)\s*:{0,2}$|[:@](param|type|returns?|rtype|raises?|arg|keyword)\b"
    r"|>>>|\.\. |\$ ",
    re.IGNORECASE,
)
UNDERLINE = re.compile(r"[-=~^*#+]{3,}\s*$")
CALL = re.compile(r"[\w.]+\(.*\)(\s*->\s*.*)?$")
LISTED = re.compile(r"([-*•+o]|\d+[.)]|\w+ ?[:=]|\w+ -+)\s")
PLACEHOLDER = re.compile(r"%\(\w+\)s|%[sd]\b|(?<!\{)\{\w*\}(?!\})|\$\w+|\|\w+\|")
UNFIT = re.compile(
    r"todo|fixme|xxx|copyright|licen[sc]e|author|all rights|\binternal\b|private|deprecated|do not use|not implemented|should not be|undocumented"
    r"|subclass(es)? (must|should|may)|override|see (the )?(docstring|doc|base|super|above|below|help|class|module|`)|for backwards? compat|obsolete|helper"
    r"|\bhack\b|@|https?:|\bpep ?\d|table \d|appendix|rfc ?\d|docstring|\bi\b|\bsee\b|same as|above\b",
    re.IGNORECASE,
)
MARKUP = (
    (re.compile(r":(?:[\w+-]+:){1,2}`~?\.?([^`<]+?)(?:\s*<[^`>]*>)?`"), r"`\1`"),  # :class:`~a.B`, :ref:`title <target>`
    (re.compile(r"`([^`<]+?)\s*<[^`>]+>`_{1,2}"), r"\1"),  # `title <url>`_
    (re.compile(r"``(.+?)``"), r"`\1`"),
    (re.compile(r"\s*\[[\w\d]+\]_"), ""),  # [1]_
    (re.compile(r"`([^`\n]+)`_+"), r"\1"),
    (re.compile(r"(?<![\w*])\*\*?([A-Za-z_][^*\n]*)\*\*?(?!\w)"), r"\1"),  # *emphasis*
    (re.compile(r"\s*\bRead more in the `?User Guide`?\.?", re.IGNORECASE), ""),
    (re.compile(r"(?<=\S)  +"), " "),
)


def answer(docstring: str) -> str | None:
    """The opening prose of a docstring as plain text of at most LONGEST_ANSWER characters, or None where it has none."""
    kept: list[str] = []
    cut = False
    for index, paragraph in enumerate(re.split(r"\n[ \t]*\n", docstring.strip())):
        lines = [line.rstrip() for line in paragraph.split("\n") if line.strip()]
        if lines and UNDERLINE.match(lines[0]):
            lines = lines[1:]
        if len(lines) > 1 and UNDERLINE.match(lines[1]):
            if index:
                break  # the next section
            lines = lines[2:]  # the title of a module
        if index == 0 and lines and CALL.match(lines[0]):
            lines = lines[1:]
        if not lines:
            continue
        end = next(
            (at for at, line in enumerate(lines) if SECTION.match(line.strip()) or (index + at and LISTED.match(line.strip()))), len(lines)
        )
        cut = end < len(lines) or lines[0][0].isspace()  # a section, a list, a table or code: the prose ends here
        if end and not lines[0][0].isspace():
            kept.append(" ".join(line.strip() for line in lines[:end]))
        if cut:
            break
    while cut and kept and not kept[-1].endswith((".", "!", "?", ")")):  # it announced what was cut off
        if whole := _whole_sentences(kept.pop(), LONGEST_ANSWER):
            kept.append(whole)
    text = _fit(kept)
    for pattern, plain in MARKUP:
        text = pattern.sub(plain, text)
    text = text.strip()
    return text if _reads_well(text) else None


def _fit(paragraphs: list[str]) -> str:
    """Whole paragraphs up to the limit; of a first one that is longer, whole sentences."""
    text = ""
    for paragraph in paragraphs:
        longer = f"{text}\n\n{paragraph}" if text else paragraph
        if len(longer) > LONGEST_ANSWER:
            return text or _whole_sentences(paragraph, LONGEST_ANSWER)
        text = longer
    return text


def _whole_sentences(text: str, limit: int) -> str:
    ends = [
        found.end()
        for found in re.finditer(r"[.!?](?=\s|$)", text[:limit])
        if not re.search(r"\b(e\.g|i\.e|etc|vs|cf)\.$", text[: found.end()])
    ]
    return text[: ends[-1]] if ends else ""


def _reads_well(text: str) -> bool:
    letters = sum(char.isalpha() or char.isspace() for char in text)
    return (
        len(text) >= SHORTEST_ANSWER
        and len(text.split()) >= FEWEST_WORDS
        and text[0].isupper()
        and text[-1] not in ",;:(-"
        and letters >= 0.8 * len(text)
        and text.count("(") == text.count(")")
        and text.count("`") % 2 == 0
        and not PLACEHOLDER.search(text)
        and not UNFIT.search(text)
    )


# -- from source files to rows ------------------------------------------------------------------------------------


def rows_of_source(source: str | bytes, module: str, capability: str, place: str) -> Iterator[tuple[str, Row | None]]:
    """(docstring, its row or None) for every documented public thing in one source file.

    `module` is its dotted name; `place` names the file in the rows' ids.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old string escapes
        tree = ast.parse(source)
    public = PUBLIC_NAME.get(module, module)
    where = ".".join(_before_private(public.split(".")))

    def visit(node: ast.Module | ast.ClassDef, outer: tuple[str, ...]) -> Iterator[tuple[str, Row | None]]:
        for child in _statements(node):
            if child.name.startswith("_"):
                continue
            name = (*outer, child.name)
            kind, signature = _signature(child, bool(outer))
            if docstring := ast.get_docstring(child):
                yield docstring, _row(f"{place}:{child.lineno}", kind, ".".join(name), where, signature, docstring, capability)
            if isinstance(child, ast.ClassDef):
                yield from visit(child, name)

    if (docstring := ast.get_docstring(tree)) and where == public:
        yield docstring, _row(f"{place}:1", "module", public, "", "", docstring, capability)
    yield from visit(tree, ())


def _before_private(parts: list[str]) -> list[str]:
    """numpy.lib._index_tricks -> numpy.lib: where a person finds it, not which file it is in."""
    return parts[: next((at for at, part in enumerate(parts) if part.startswith("_")), len(parts))] or [parts[0].lstrip("_")]


def _statements(node: ast.AST) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Definitions directly in a module or class, also under `if` and `try`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child
        elif isinstance(child, (ast.If, ast.Try, ast.ExceptHandler)):
            yield from _statements(child)


def _signature(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, in_class: bool) -> tuple[str, str]:
    """(kind, first line of the definition); annotations, then defaults are left out where it would be too long."""
    if isinstance(node, ast.ClassDef):
        bases = [ast.unparse(base) for base in node.bases if not ast.unparse(base).split(".")[-1].startswith("_")]
        return "class", f"class {node.name}" + (f"({', '.join(bases)})" if bases else "")
    decorators = {ast.unparse(decorator).split("(")[0].split(".")[-1] for decorator in node.decorator_list}
    kind = "property" if decorators & {"property", "cached_property", "cache_readonly", "setter"} else "method" if in_class else "function"
    start = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    given = node.args
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    full = f"{start} {node.name}({ast.unparse(given)}){returns}"
    if len(full) <= LONGEST_SIGNATURE:
        return kind, full
    names = [*(a.arg for a in given.posonlyargs), *(a.arg for a in given.args)]
    names += [f"*{given.vararg.arg}"] if given.vararg else ["*"] if given.kwonlyargs else []
    names += [*(a.arg for a in given.kwonlyargs), *([f"**{given.kwarg.arg}"] if given.kwarg else [])]
    return kind, f"{start} {node.name}({', '.join(names)})"


def _row(place: str, kind: str, name: str, where: str, signature: str, docstring: str, capability: str) -> Row | None:
    text = answer(docstring)
    if text is None or len(signature) > 2 * LONGEST_SIGNATURE:
        return None
    # By content, not by place: the same method of two classes is asked for in the same way.
    instruction = _chosen(TEMPLATES[kind], signature or name, text).format(kind=kind, name=name, of=f"in `{where}`")
    return Row(place, instruction, signature, text, capability)


def _chosen(templates: tuple[str, ...], *content: str) -> str:
    return templates[int(_hash(*content)[:8], 16) % len(templates)]


def _hash(*content: str) -> str:
    return hashlib.sha256("\0".join(content).encode()).hexdigest()


def rows_of_topics(source: str | bytes) -> Iterator[tuple[str, Row | None]]:
    """Rows of `pydoc_data/topics.py`: one dictionary, topic -> text whose first line is its title."""
    found = next(node for node in ast.parse(source).body if isinstance(node, ast.Assign))
    for key, text in sorted(ast.literal_eval(found.value).items()):
        title = next((line.strip() for line in text.split("\n") if line.strip()), "")
        # The topics print emphasis as *word* and code as "word".
        body = re.sub(r'(?<!\w)"([^"\n]{1,40})"(?!\w)', r"`\1`", re.sub(r"\*\*?([^*\n]+)\*\*?(?!\w)", r"\1", text))
        paragraphs = re.split(r"\n[ \t]*\n", body.strip())
        # Grammar comes first in many of them, indented; the prose begins after it.
        prose = [part for part in paragraphs[1:] if not part.startswith((" ", "\t", "*", "-", "="))]
        answered = answer("\n\n".join(prose)) if prose and title else None
        if answered is None:
            yield text, None
            continue
        name = re.sub(r'"([^"]+)"', r"`\1`", title)
        name = name if name[:2].isupper() or name.startswith("`") else name[0].lower() + name[1:]
        yield text, Row(f"topics:{key}", _chosen(TEMPLATES["topic"], name, answered).format(name=name), "", answered, "language")


def _files(name: str) -> list[tuple[str, Path, str]]:
    """(dotted module, file, its name) of a module or package, in order of path; it is looked for in Python itself first."""
    places = sysconfig.get_paths()
    for root in (Path(places["stdlib"]), Path(places["purelib"]), Path(places["platlib"])):
        base = root / name
        found = [base.with_suffix(".py")] if base.with_suffix(".py").is_file() else sorted(base.rglob("*.py")) if base.is_dir() else []
        if found:
            parts = {file: file.relative_to(root).with_suffix("").parts for file in found}
            read = [file for file in found if not NOT_READ.intersection(parts[file])]
            return [(".".join(parts[file]).removesuffix(".__init__"), file, file.relative_to(root).as_posix()) for file in read]
    return []


def collect() -> tuple[list[Row], Counter[str], list[str]]:
    """Every row; how often each docstring was met; what is not installed and so was not read."""
    rows: list[Row] = []
    docstrings: Counter[str] = Counter()
    missing: list[str] = []

    def take(found: Iterator[tuple[str, Row | None]]) -> None:
        for docstring, row in found:
            docstrings[_hash(docstring)] += 1
            if row is not None:
                rows.append(row)

    for capability, names in FAMILIES.items():
        for name in names:
            files = _files(name)
            if not files:
                missing.append(name)
            for module, file, place in files:
                try:
                    take(rows_of_source(file.read_bytes(), module, capability, place))
                except (SyntaxError, ValueError):  # a file for another Python
                    continue
    topics = Path(sysconfig.get_paths()["stdlib"]) / "pydoc_data" / "topics.py"
    if topics.is_file():
        take(rows_of_topics(topics.read_bytes()))
    else:
        missing.append("pydoc_data.topics")
    return rows, docstrings, missing


def spread(rows: list[Row], most: int) -> list[Row]:
    """At most `most` rows in their own order, as even over capabilities as there are rows for.

    Within a capability by hash of the content: about a tenth in sets of up to REPEATS rows with one signature and one
    answer (the same method of sibling classes, a definition per platform), the rest one row of each.
    """
    told: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        told[row.capability][_hash(row.input, row.output)].append(row)
    left, chosen = most, set()
    for turn, name in enumerate(sorted(told, key=lambda name: (len(told[name]), name))):  # smallest first: what it lacks goes to the others
        share = left // (len(told) - turn)
        sets = [told[name][key] for key in sorted(told[name])]
        repeats = [row for group in sets if len(group) > 1 for row in group[:REPEATS]][: share // 10]
        once = [group[0] for group in sets if group[0] not in repeats][: share - len(repeats)]
        chosen |= {row.id for row in (*repeats, *once)}
        left -= len(repeats) + len(once)
    return [row for row in rows if row.id in chosen]


def set_apart(rows: list[Row], each: int) -> tuple[list[Row], list[Row]]:
    """(the other rows, `each` rows of every capability by hash, at most a quarter of it); no answer is in both, and no row with an answer that is repeated is set apart."""
    times = Counter(row.output for row in rows)
    apart: list[Row] = []
    for capability in sorted({row.capability for row in rows}):
        once = [row for row in rows if row.capability == capability and times[row.output] == 1]
        apart += sorted(once, key=lambda row: _hash("example", row.id))[: min(each, len(once) // 4)]
    ids = {row.id for row in apart}
    return [row for row in rows if row.id not in ids], apart


# -- writing ------------------------------------------------------------------------------------------------------


def build(folder: Path, rows: int = 1000) -> dict[str, str]:
    """Write the files and say what they hold; the facts of the last call where nothing changed since."""
    packages = sorted({name.split("/")[0] for names in FAMILIES.values() for name in names})
    versions = {name: _version(name) for name in packages}
    wanted = _hash(sys.version, json.dumps(versions, sort_keys=True), Path(__file__).read_text(encoding="utf-8"), str(rows))
    stamp = folder / ".made"  # hidden, so that ingest passes it over
    files = {name: folder / f"{name}.jsonl" for name in ("pool", "quickstart", "examples")}
    if stamp.is_file():
        made = json.loads(stamp.read_text(encoding="utf-8"))
        if made["wanted"] == wanted and all(path.is_file() and _digest(path) == made[name] for name, path in files.items()):
            return made["facts"] | {"state": "up to date"}
    folder.mkdir(parents=True, exist_ok=True)
    pool, docstrings, missing = collect()
    pool, apart = set_apart(pool, EXAMPLES)
    small = spread(pool, rows)
    for name, content in (("pool", pool), ("quickstart", small), ("examples", apart)):
        aside = folder / f".{name}.tmp"
        aside.write_text("".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in content), encoding="utf-8", newline="\n")
        aside.replace(files[name])
    read = f"{docstrings.total():,} docstrings read, {len(docstrings):,} of them different" + (
        f"; not installed: {', '.join(missing)}" if missing else ""
    )
    facts = {"table": _table(pool, small), "read": read, "state": "written"}
    stamp.write_text(
        json.dumps({"wanted": wanted, "facts": facts, **{name: _digest(path) for name, path in files.items()}}), encoding="utf-8"
    )
    return facts


def _table(pool: list[Row], small: list[Row]) -> str:
    lines = [f"{'capability':<16}{'pool':>8}{'distinct':>10}{'quickstart':>12}"]
    for capability in [*FAMILIES, "language", None]:
        here = [row for row in pool if capability in (row.capability, None)]
        chosen = [row for row in small if capability in (row.capability, None)]
        lines.append(f"{capability or 'all':<16}{len(here):>8,}{len({row.output for row in here}):>10,}{len(chosen):>12,}")
    return "\n".join(lines)


def _version(package: str) -> str:
    try:
        return metadata.version({"sklearn": "scikit-learn", "dateutil": "python-dateutil"}.get(package, package))
    except metadata.PackageNotFoundError:
        return "of Python itself, or not installed"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.quickstart_corpus", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="OUT_FOLDER", help="for example runs/quickstart-corpus")
    parser.add_argument("--rows", type=int, default=1000, help="rows of quickstart.jsonl [1000]")
    given = parser.parse_args(arguments)
    if given.rows < 1:
        parser.error("--rows must be 1 or more")
    facts = build(given.folder, given.rows)
    print(
        f"{facts['table']}\n\n{facts['read']}\n{facts['state']}: {', '.join(str(given.folder / f'{name}.jsonl') for name in ('pool', 'quickstart', 'examples'))}"
    )
    path, counts = quickstart_documents.write(given.folder)
    print(f"and for the pretraining road: {path} ({', '.join(f'{number:,} {kind}' for kind, number in counts.items())})")


if __name__ == "__main__":
    main()
