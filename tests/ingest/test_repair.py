import json

import pytest

from curate.ingest.repair import repairer


@pytest.mark.parametrize(
    ("damaged", "mended"),
    [
        ("schÃ¶n und groÃŸ", "schön und groß"),
        ("donâ€™t say â€œnoâ€\x9d", "don’t say “no”"),
        ("Tom &amp; Jerry &lt;3", "Tom & Jerry <3"),
        ("one\r\ntwo", "one\ntwo"),
    ],
)
def test_damage_is_mended(damaged, mended):
    assert repairer()(damaged) == mended


@pytest.mark.parametrize(
    "text", ["“curly” and 'straight'", "ﬁne", "ＬＯＵＤ", "e\u0301", "x = a & b", "if a < b: <b>&amp;</b>", "naïve café Ã", "a\tb\nc"]
)
def test_what_is_written_on_purpose_stays(text):
    assert repairer()(text) == text


def test_rows_are_mended_where_the_recipe_says_and_counted(read_bytes):
    rows = [{"instruction": "Wie ist es?", "output": "SchÃ¶n."}, {"instruction": "Why?", "output": "Because."}]
    data = "\n".join(map(json.dumps, rows))
    kept, mended = (read_bytes("a.jsonl", data, damaged_text=setting) for setting in ("keep", "mend"))
    assert [row["response"] for row in kept.rows] == ["SchÃ¶n.", "Because."]
    assert [row["response"] for row in mended.rows] == ["Schön.", "Because."] and mended.rows[0]["text"].endswith("Schön.")
    assert json.loads(mended.shards[0].schema.metadata[b"counts"]) == {"mended_text": 1}
