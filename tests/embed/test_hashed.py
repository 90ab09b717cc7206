from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from curate.embed.hashed import HashedNgrams

ROWS = pa.table(
    {
        "prompt": pa.array(["Add 2 and 3.", "Add 2 and 3.", None], pa.large_string()),
        "text": pa.array(["Add 2 and 3. 5", "Add 2 and 3. five", "A page about bees."], pa.large_string()),
    }
)


def embed(stage: HashedNgrams) -> np.ndarray:
    table = stage.load(Path())(ROWS)
    assert table.schema == stage.writes()
    return np.stack(table.column("vector").to_pylist())


def test_the_prompt_view_ignores_the_response_and_takes_the_text_of_plain_rows():
    vectors = embed(HashedNgrams())
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[2], embed(HashedNgrams(view="text"))[2])


def test_the_text_view_sees_the_response():
    vectors = embed(HashedNgrams(view="text"))
    assert not np.array_equal(vectors[0], vectors[1])


def test_dimensions_are_the_type_of_the_column():
    assert embed(HashedNgrams(dimensions=64)).shape == (3, 64)
    with pytest.raises(ValidationError):
        HashedNgrams(dims=64)


def test_one_word_of_five_million_letters_costs_no_more_than_its_beginning():
    table = pa.table({"text": ["a" * 5_000_000, "a" * 1000]})
    first, second = HashedNgrams(view="text", max_characters=1000).load(Path())(table).column("vector").to_pylist()
    assert first == second
