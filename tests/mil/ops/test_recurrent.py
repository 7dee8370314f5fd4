import numpy as np
import pytest
from operations import check, const, floats

STEPS, BATCH, INPUT, HIDDEN = 3, 2, 4, 5
X = floats(STEPS, BATCH, INPUT)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def weights(gates, seed):
    rows = gates * HIDDEN
    return (floats(rows, INPUT, seed=seed), floats(rows, HIDDEN, seed=seed + 1),
            floats(rows, seed=seed + 2))


def lstm(x, h, c, weight_ih, weight_hh, bias):
    outputs = []
    for each in x:
        gates = each @ weight_ih.T + h @ weight_hh.T + bias
        i, f, o, z = np.split(gates, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(z)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs), h, c


def constants(values, suffix=""):
    names = (f"weight_ih{suffix}", f"weight_hh{suffix}", f"bias{suffix}")
    return dict(zip(names, map(const, values), strict=True))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("output_sequence", [True, False])
def test_lstm(direction, output_sequence):
    h, c, given = floats(BATCH, HIDDEN, seed=7), floats(BATCH, HIDDEN, seed=8), weights(4, 1)
    order = slice(None, None, -1 if direction == "reverse" else 1)
    sequence, last_h, last_c = lstm(X[order], h, c, *given)
    expected = sequence[order] if output_sequence else last_h[None]

    check("lstm", expected, last_h, last_c, x=X, initial_h=h, initial_c=c, direction=direction,
          output_sequence=output_sequence, **constants(given))


def test_lstm_in_both_directions():
    h, c = floats(BATCH, 2 * HIDDEN, seed=7), floats(BATCH, 2 * HIDDEN, seed=8)
    first, second = weights(4, 1), weights(4, 11)
    there = lstm(X, h[:, :HIDDEN], c[:, :HIDDEN], *first)
    back = lstm(X[::-1], h[:, HIDDEN:], c[:, HIDDEN:], *second)
    back = (back[0][::-1], *back[1:])
    expected = [np.concatenate(pair, -1) for pair in zip(there, back, strict=True)]

    check("lstm", *expected, x=X, initial_h=h, initial_c=c, direction="bidirectional",
          output_sequence=True, **constants(first), **constants(second, "_back"))


def test_rnn():
    h, (weight_ih, weight_hh, bias) = floats(BATCH, HIDDEN, seed=7), weights(1, 1)
    last = h
    for each in X:
        last = np.maximum(each @ weight_ih.T + last @ weight_hh.T + bias, 0)

    check("rnn", last[None], last, x=X, initial_h=h, activation="relu",
          **constants((weight_ih, weight_hh, bias)))
