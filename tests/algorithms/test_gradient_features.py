"""Sketches of gradients against plain autograd, one row at a time."""

import numpy as np
import pytest
import torch

from curate.algorithms.gradient_features import RowGradients, alignments, is_prime, prime_below

WIDTH, HIDDEN, INNER, VOCABULARY, DIMS = 9, 12, 20, 17, 31


class Toy(torch.nn.Module):
    """A frozen first map, then two maps of unlike widths, one of them used twice; positions mix, as in attention."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(VOCABULARY, HIDDEN)
        self.first = torch.nn.Linear(HIDDEN, HIDDEN)
        self.up = torch.nn.Linear(HIDDEN, INNER)
        self.down = torch.nn.Linear(INNER, HIDDEN, bias=False)
        self.head = torch.nn.Linear(HIDDEN, VOCABULARY, bias=False)
        self.requires_grad_(False)

    def forward(self, inputs):
        x = torch.tanh(self.first(self.embed(inputs)))
        for _ in range(2):
            x = x + self.down(torch.tanh(self.up(x))).cumsum(1) / WIDTH
        return x


def batch(rows=4):
    """Inputs of unlike lengths, and per row some places with a target: one row has one, the last two share a column."""
    random = np.random.default_rng(1)
    lengths = [9, 7, 5, 5][:rows]
    inputs = np.zeros((rows, WIDTH), np.int64)
    for row, length in enumerate(lengths):
        inputs[row, :length] = random.integers(1, VOCABULARY, length)
    places = [(0, 3), (0, 4), (0, 8), (1, 6), (2, 2), (2, 4), (3, 2), (3, 3), (3, 4)]
    at = np.array([place for place in places if place[0] < rows])
    return [torch.from_numpy(array) for array in (inputs, at[:, 0].copy(), at[:, 1].copy(), random.integers(0, VOCABULARY, len(at)))]


def true_gradients(model, inputs, rows, columns, targets):
    """Per row the gradients of its mean loss with respect to the weights of `up` and `down`, by autograd alone."""
    weights = [model.up.weight, model.down.weight]
    for weight in weights:
        weight.requires_grad_(True)
    found = []
    for row in range(len(inputs)):
        mine = rows == row
        logits = model.head(model(inputs[row : row + 1])[0, columns[mine]])
        found.append(torch.autograd.grad(torch.nn.functional.cross_entropy(logits, targets[mine]), weights))
    for weight in weights:
        weight.requires_grad_(False)
    return found


def sketched(sketch, gradients):
    """The definition in the docstring, entry by entry."""
    sketches = np.zeros((len(gradients), DIMS))
    for row, matrices in enumerate(gradients):
        for matrix, (out_signs, in_signs) in zip(matrices, sketch.signs, strict=True):
            for (i, j), value in np.ndenumerate(matrix.double().numpy()):
                sketches[row, (i * matrix.shape[1] + j) % DIMS] += out_signs[i].item() * value * in_signs[j].item()
    return sketches


@pytest.mark.parametrize("chunk", [64, 2])
def test_a_sketch_is_the_fold_of_the_true_gradient_of_each_row(chunk):
    model, given = Toy(), batch()
    sketch = RowGradients(model, model.head, [model.up, model.down], DIMS, chunk=chunk)
    np.testing.assert_allclose(sketch(*given), sketched(sketch, true_gradients(model, *given)), rtol=1e-4, atol=1e-6)


def test_a_row_has_the_same_sketch_alone_and_with_others_and_twice():
    model, given = Toy(), batch()
    sketch = RowGradients(model, model.head, [model.up, model.down], DIMS)
    whole = sketch(*given)
    assert np.array_equal(whole, sketch(*given))
    np.testing.assert_allclose(sketch(*batch(1)[:3], given[3][:3]), whole[:1], rtol=1e-4, atol=1e-6)


def test_nothing_before_the_first_map_keeps_a_graph():
    model, given = Toy(), batch()
    entered = []
    model.up.register_forward_hook(lambda module, args, output: entered.append(args[0].requires_grad))
    RowGradients(model, model.head, [model.up, model.down], DIMS)(*given)
    assert entered == [False, True]  # frozen up to its first use


def test_inner_products_of_sketches_are_those_of_the_gradients_on_average():
    model, given = Toy(), batch()
    true = torch.stack([torch.cat([matrix.flatten() for matrix in row]) for row in true_gradients(model, *given)]).double().numpy()
    products = []
    for seed in range(300):
        found = RowGradients(model, model.head, [model.up, model.down], DIMS, seed)(*given)
        products.append(found @ found.T)
        for linear in (model.up, model.down):
            linear._forward_hooks.clear()
    error = np.std(products, axis=0) / np.sqrt(len(products))
    assert (np.abs(np.mean(products, axis=0) - true @ true.T) < 4 * error).all()


def test_dims_that_are_no_prime_are_refused():
    with pytest.raises(ValueError, match="give 31"):
        RowGradients(None, None, [], 32)
    assert [n for n in range(20) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19] and prime_below(4096) == 4093 and prime_below(3) == 3


def test_alignments_are_cosines_and_nan_where_there_is_nothing_to_align_with():
    unit = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    np.testing.assert_allclose(alignments(unit, np.array([0.0, 5.0])), [0.0, 0.8], atol=1e-6)
    np.testing.assert_allclose(alignments(unit, np.array([[2.0, 2.0], [0.0, 0.0]])), [np.sqrt(0.5), np.nan], atol=1e-6)
