"""KenLM is an extra that is built from source: where it is missing, what is left to test is what people are told."""

import importlib.util
from pathlib import Path

import pyarrow as pa
import pytest

from curate.errors import UserMistake
from curate.score.kenlm import Kenlm, normalised

there = importlib.util.find_spec("kenlm") is not None
needs_kenlm = pytest.mark.skipif(not there, reason="needs the extra kenlm, which is built from source: pip install kenlm sentencepiece")

# log10: <unk> -3, </s> -1, "the" -0.5, "cat" -1, and after "the" -0.2.
WORDS = "-3\t<unk>\t0\n0\t<s>\t0\n-1\t</s>\t0\n-0.5\tthe\t0\n-1\tcat\t0\n"
ARPA = f"\\data\\\nngram 1=5\nngram 2=1\n\n\\1-grams:\n{WORDS}\n\\2-grams:\n-0.2\tthe cat\n\n\\end\\\n"


def scored(folder: Path, *texts: str, **settings) -> list[float | None]:
    (folder / "model.arpa").write_text(ARPA)
    stage = Kenlm(model=str(folder / "model.arpa"), **settings)
    found = stage.load(folder)(pa.table({"text": pa.array(texts, pa.large_string())}))
    assert found.schema == stage.writes()
    return found.column("kenlm_perplexity").to_pylist()


@needs_kenlm
def test_the_perplexity_is_that_of_pieces_and_line_ends(tmp_path):
    assert scored(tmp_path, "the cat") == pytest.approx([10 ** (1.7 / 3)], rel=1e-5)
    assert scored(tmp_path, "the cat\n\nTHE") == pytest.approx([10 ** ((1.7 + 1.5) / 5)], rel=1e-5)
    assert scored(tmp_path, "THE", normalise=False) == pytest.approx([10 ** (4 / 2)], rel=1e-5)
    assert scored(tmp_path, " \n\t") == [None]


@needs_kenlm
def test_what_is_no_model_is_named(tmp_path):
    (tmp_path / "bad.arpa").write_text("no model")
    with pytest.raises(UserMistake, match="is no model"):
        Kenlm(model=str(tmp_path / "bad.arpa")).load(tmp_path)


@pytest.mark.skipif(there, reason="KenLM is installed")
def test_without_kenlm_the_remedy_is_told(tmp_path):
    (tmp_path / "model.arpa").write_text(ARPA)
    with pytest.raises(UserMistake, match=r"pip install kenlm.*ngram_perplexity"):
        Kenlm(model=str(tmp_path / "model.arpa")).load(tmp_path)


def test_lines_are_normalised_as_ccnet_does():
    assert normalised("Él comió 123 „Äpfel“ – ja…\x07") == 'el comio 000 "apfel" - ja...'


def test_a_model_is_known_by_its_content_and_a_missing_one_is_named(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(ARPA)
    assert Kenlm(model=str(tmp_path / "a")).identity() == Kenlm(model=str(tmp_path / "b")).identity()
    with pytest.raises(UserMistake, match="kenlm: model"):
        Kenlm(model=str(tmp_path / "missing")).identity()
