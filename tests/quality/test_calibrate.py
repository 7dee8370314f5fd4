"""Calibration against what it stands for: gradients of each element, and the least squares by which
later columns make up for an error."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sdbuild.models.recomputed import recompute
from sdbuild.quality.calibrate import Passes, guided
from sdbuild.quality.inputs import factored
from sdbuild.quality.moments import spread


class Net(nn.Module):
    """Two layers whose weights are large enough, and one whose is not."""

    def __init__(self, outputs=1):
        super().__init__()
        self.conv = nn.Conv2d(8, 32, 3, padding=1, stride=2)
        self.linear = nn.Linear(32 * 4 * 4, outputs)
        self.widen = nn.Linear(6, 6)

    def forward(self, x):
        return self.linear(torch.tanh(self.conv(x)).flatten(1))


class ResnetBlock2D(nn.Module):
    """A layer in a block of which networks know that it can be recomputed."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x):
        return x + torch.tanh(self.conv(x))


def first(outputs):
    return outputs[0]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net(outputs=8)


def moments(count, batch=1):
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((batch, 8, 8, 8)).astype(np.float32)} for _ in range(count)]


def test_sensitivities_are_mean_squares_of_the_gradient_of_all_outputs(net, tmp_path):
    given = moments(400)
    passes = Passes(net, ["x"], first, seed=1, folder=tmp_path)
    passes.run(given)

    jacobians = []
    for moment in given:
        weight = net.conv.weight.detach().requires_grad_(True)

        def run(w, x=moment["x"]):
            hidden = F.conv2d(torch.from_numpy(x), w, net.conv.bias, stride=2, padding=1)
            return net.linear(torch.tanh(hidden).flatten(1)).flatten()

        jacobians.append(torch.autograd.functional.jacobian(run, weight).square().sum(0))
    wanted = torch.stack(jacobians).mean(0).numpy()
    found = dict(passes.sensitivities())["conv.weight"]
    assert found.shape == wanted.shape
    assert found.sum() == pytest.approx(wanted.sum(), rel=0.1)
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.95


def test_small_weights_and_biases_are_left_out(net, tmp_path):
    passes = Passes(net, ["x"], first, seed=1, folder=tmp_path)
    passes.run(moments(2))

    assert set(dict(passes.sensitivities())) == {"conv.weight", "linear.weight"}
    assert set(dict(passes.feedbacks())) == {"conv.weight", "linear.weight"}


def test_guided_noise_is_that_of_the_prompt_away_from_the_negative_one():
    noise = torch.arange(6.0).reshape(2, 3)

    assert guided(5.0)((noise,)).tolist() == [[15.0, 16.0, 17.0]]
    assert guided(1.0)((noise,)).tolist() == [[3.0, 4.0, 5.0]]


def test_later_columns_make_up_for_an_error_as_least_squares_does():
    """With column 0 off by e, the others move by -e H_FF^-1 H_F0, as the normal equations say."""
    rng = np.random.default_rng(3)
    inputs = rng.standard_normal((500, 6)) @ rng.standard_normal((6, 6))
    products = inputs.T @ inputs

    order, factors, variances = factored(torch.from_numpy(products))

    assert np.all(np.diff(np.diag(products)[order]) <= 0)
    damped = products[np.ix_(order, order)] + np.eye(6) * np.diag(products).mean() * 0.01
    for column in range(5):
        rest = slice(column + 1, None)
        wanted = -np.linalg.solve(damped[rest, rest], damped[rest, column])
        np.testing.assert_allclose(factors[column, rest], wanted, rtol=0.01, atol=2e-3)
        told = damped[rest, column] @ -wanted
        assert variances[column] == pytest.approx(damped[column, column] - told)
    assert not np.tril(factors).any()


def test_errors_are_made_up_for_by_what_a_layer_is_given_within_the_network(net, tmp_path):
    given = moments(40, batch=16)  # more than are multiplied at once
    passes = Passes(net, ["x"], first, seed=1, folder=tmp_path)
    passes.run(given)

    with torch.no_grad():
        rows = torch.cat([torch.tanh(net.conv(torch.from_numpy(m["x"]))).flatten(1)
                          for m in given]).double().numpy()
    found = dict(passes.feedbacks())["linear.weight"]
    order = found.order[0]
    products = (rows.T @ rows)[np.ix_(order, order)]
    damped = products + np.eye(len(order)) * np.diag(products).mean() * 0.01
    wanted = -np.linalg.solve(damped[1:, 1:], damped[1:, 0])
    np.testing.assert_allclose(found.factors[0, 0, 1:], wanted, rtol=0.01, atol=2e-3)
    assert np.abs(wanted).max() > 0.02


def test_recomputing_blocks_changes_nothing_and_counts_no_input_twice(tmp_path):
    def found(change):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(8, 16, 3), ResnetBlock2D(), ResnetBlock2D())
        passes = Passes(change(net), ["x"], first, seed=1, folder=tmp_path)
        passes.run(moments(3))
        return dict(passes.sensitivities()), dict(passes.feedbacks())

    plain, recomputed = found(lambda net: net), found(recompute)

    assert set(plain[0]) == set(plain[1]) == {"1.conv.weight", "2.conv.weight"}
    for name, values in plain[0].items():
        assert np.array_equal(recomputed[0][name], values)
    for name, feedback in plain[1].items():
        assert np.array_equal(recomputed[1][name].factors, feedback.factors)
        assert np.array_equal(recomputed[1][name].order, feedback.order)
        assert np.array_equal(recomputed[1][name].variances, feedback.variances)


def test_sums_lie_in_files_that_have_no_names(net, tmp_path):
    passes = Passes(net, ["x"], first, seed=1, folder=tmp_path)
    passes.run(moments(1))

    assert list(tmp_path.iterdir()) == []
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert f"{tmp_path}/" in mapped.read_text("utf-8")


def test_a_layer_that_is_given_nothing_has_columns_that_make_up_for_nothing():
    order, factors, _ = factored(torch.zeros(4, 4, dtype=torch.float64))

    assert sorted(order) == [0, 1, 2, 3]
    assert not factors.any()


@pytest.mark.parametrize(("steps", "count"), [(20, 4), (25, 4), (4, 4), (3, 4), (1, 4)])
def test_every_step_of_images_takes_its_turn(steps, count):
    found = [spread(steps, count, number) for number in range(30)]

    assert {len(each) for each in found} == {min(steps, count)}
    assert frozenset.union(*found) == frozenset(range(steps))
