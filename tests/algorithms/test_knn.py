"""Neighbours: against brute force in float64, with ties, copies and any batch; and the inverted file against the exact ones."""

import numpy as np
import pytest

from curate.algorithms import knn


def unit(seed, n, d=384):
    return knn.unit_rows(np.random.default_rng(seed).normal(size=(n, d)))[0]


def test_neighbours_are_those_of_brute_force():
    rows, queries = unit(0, 300, 16), unit(1, 40, 16)
    distances, indices = knn.search(queries, rows, 7)
    brute = np.sqrt(((queries[:, None].astype(float) - rows[None]) ** 2).sum(2))
    assert (indices == np.argsort(brute, axis=1, kind="stable")[:, :7]).all()
    assert np.abs(distances - np.take_along_axis(brute, indices, 1)).max() < 1e-7


def test_the_row_itself_is_left_out_its_copies_are_not():
    rows = unit(2, 30, 8)
    rows[11] = rows[4]
    distances, indices = knn.nearest_others(rows, 3)
    assert not (indices == np.arange(30)[:, None]).any()
    assert indices[4, 0] == 11 and indices[11, 0] == 4 and distances[4, 0] == 0


def test_ties_go_by_index_also_among_more_copies_than_neighbours():
    rows = np.repeat(unit(3, 1, 8), 50, axis=0)
    distances, indices = knn.nearest_others(rows, 3)
    assert (distances == 0).all()
    assert indices[20].tolist() == [0, 1, 2] and indices[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(("n", "c"), [(1, 1), (7, 7), (50, 3), (1000, 24), (1013, 9)])
def test_the_largest_products_are_found_with_ties_to_the_lower_column(n, c):
    rng = np.random.default_rng(n)
    for products in (rng.normal(size=(20, n)), rng.integers(4, size=(20, n)), np.zeros((20, n))):
        products = products.astype(np.float32)
        wanted = np.argsort(-products, axis=1, kind="stable")[:, :c]
        assert (np.sort(knn._largest(products, c), axis=1) == np.sort(wanted, axis=1)).all()


def test_near_copies_keep_their_digits():
    row = np.zeros((2, 100))
    row[:, 0], row[1, 1] = 1, 1e-5
    rows = knn.unit_rows(row)[0]
    # 2 - 2 cos is 0 in float32 here; the true distance is 1e-5.
    assert knn.nearest_others(rows, 1)[0][0, 0] == pytest.approx(1e-5, rel=1e-3)


def test_an_answer_is_the_same_bytes_in_any_batch():
    rows, queries = unit(4, 1000), unit(5, 50)
    whole = knn.search(queries, rows, 10)
    for cuts in ([1, 2, 3], [19, 21]):
        parts = [knn.search(part, rows, 10) for part in np.split(queries, cuts)]
        for which in (0, 1):
            assert np.concatenate([part[which] for part in parts]).tobytes() == whole[which].tobytes()


def test_rows_without_direction_are_named_and_zero():
    rows = np.ones((5, 4), np.float32)
    rows[1], rows[3, 2], rows[4, 0] = 0, np.nan, np.inf
    cleaned, bad = knn.unit_rows(rows)
    assert bad.tolist() == [1, 3, 4] and not cleaned[bad].any()
    assert np.linalg.norm(cleaned[0]) == pytest.approx(1)


def test_more_neighbours_than_rows_are_refused():
    with pytest.raises(ValueError, match="lower k"):
        knn.nearest_others(unit(0, 3), 3)


def test_without_faiss_the_error_says_what_to_type(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(ImportError, match="pip install faiss-cpu"):
        knn.faiss_index(4)


def test_a_gpu_that_is_not_there_is_an_error_not_a_cpu_index():
    import faiss

    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this FAISS has GPU support")
    with pytest.raises(RuntimeError, match="pip install faiss-gpu"):
        knn.faiss_index(4, gpu=True)


def test_the_inverted_file_finds_almost_all_neighbours_with_exact_distances():
    rng = np.random.default_rng(6)
    rows = knn.unit_rows(rng.normal(size=(40, 24))[rng.integers(40, size=3000)] + 0.5 * rng.normal(size=(3000, 24)))[0]
    exact, near = knn.nearest_others(rows, 10), knn.nearest_others(rows, 10, exact_below=0)
    found = (near[1][:, :, None] == exact[1][:, None, :]).any(axis=1)
    assert found.mean() > 0.97
    gaps = np.linalg.norm(rows[:, None].astype(float) - rows[near[1]], axis=2)
    assert np.abs(near[0] - gaps).max() < 1e-6 and (np.diff(near[0], axis=1) >= 0).all()
    assert not (near[1] == np.arange(3000)[:, None]).any()


def test_the_inverted_file_gives_the_same_bytes_whatever_the_threads():
    import faiss

    rows = unit(7, 3000, 24)
    before = faiss.omp_get_max_threads()
    answers = []
    for threads in (1, 2):
        faiss.omp_set_num_threads(threads)
        answers.append(knn.nearest_others(rows, 10, exact_below=0))
        assert faiss.omp_get_max_threads() == threads
    faiss.omp_set_num_threads(before)
    assert all(one.tobytes() == other.tobytes() for one, other in zip(*answers, strict=True))


@pytest.mark.parametrize("n", [2, 5, 30])
def test_the_inverted_file_of_a_few_rows_is_exact(n):
    rows = unit(8, n, 8)
    exact, near = knn.nearest_others(rows, n - 1), knn.nearest_others(rows, n - 1, exact_below=0)
    assert (exact[1] == near[1]).all() and (exact[0] == near[0]).all()


def test_the_inverted_file_keeps_copies():
    rows = np.repeat(unit(9, 100, 16), 20, axis=0)
    distances, indices = knn.nearest_others(rows, 10, exact_below=0)
    assert (distances == 0).all() and (indices // 20 == np.arange(2000)[:, None] // 20).all()


def test_an_index_on_a_gpu_finds_the_neighbours_that_the_cpu_finds():
    """Parity on 2,000 random unit vectors; needs faiss-gpu and a CUDA device."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        pytest.skip("no CUDA device, or faiss-cpu is installed: GPU parity cannot be checked here")
    vectors, _ = knn.unit_rows(np.random.default_rng(0).normal(size=(2000, 64)).astype(np.float32))
    on_cpu, on_gpu = knn.nearest_others(vectors, 10), knn.nearest_others(vectors, 10, gpu=True)
    assert (on_cpu[1] == on_gpu[1]).mean() > 0.999
    np.testing.assert_allclose(on_cpu[0], on_gpu[0], atol=1e-5)
