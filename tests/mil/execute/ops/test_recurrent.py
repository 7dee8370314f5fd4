import numpy as np
import pytest

from tests.mil.operations import check, const, floats

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
    expected = sequence if output_sequence else last_h[None]

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


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_rnn(direction):
    h, (weight_ih, weight_hh, bias) = floats(BATCH, HIDDEN, seed=7), weights(1, 1)
    last, outputs = h, []
    for each in X[::-1] if direction == "reverse" else X:
        last = np.maximum(each @ weight_ih.T + last @ weight_hh.T + bias, 0)
        outputs.append(last)

    given = {"x": X, "initial_h": h, "activation": "relu", "direction": direction,
             **constants((weight_ih, weight_hh, bias))}
    check("rnn", last[None], last, **given)
    check("rnn", np.stack(outputs), last, output_sequence=True, **given)


def test_lstm_with_peepholes_and_a_clipped_cell():
    h, c = floats(BATCH, HIDDEN, seed=7), floats(BATCH, HIDDEN, seed=8)
    (weight_ih, weight_hh, bias), peephole = weights(4, 1), floats(3 * HIDDEN, seed=9)
    p_i, p_f, p_o = np.split(peephole, 3)
    last_h, last_c = h, c
    for each in X:
        gates = each @ weight_ih.T + last_h @ weight_hh.T + bias
        i, f, o, z = np.split(gates, 4, -1)
        cell = sigmoid(f + p_f * last_c) * last_c + sigmoid(i + p_i * last_c) * np.tanh(z)
        last_c = np.clip(cell, -0.3, 0.3)
        last_h = sigmoid(o + p_o * last_c) * last_c

    check("lstm", last_h[None], last_h, last_c, x=X, initial_h=h, initial_c=c, clip=0.3,
          peephole=const(peephole), activation="linear", **constants((weight_ih, weight_hh, bias)))


@pytest.mark.parametrize("reset_after", [None, True])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_gru(direction, reset_after):
    h, (weight_ih, weight_hh, bias) = floats(BATCH, HIDDEN, seed=7), weights(3, 1)
    w_r, w_o, w_z = np.split(weight_hh, 3)
    b_r, b_o, b_z = np.split(bias, 3)
    last, outputs = h, []
    for each in X[::-1] if direction == "reverse" else X:
        x_r, x_o, x_z = np.split(each @ weight_ih.T, 3, -1)
        r, z = sigmoid(x_r + last @ w_r.T + b_r), sigmoid(x_z + last @ w_z.T + b_z)
        reset = r * (last @ w_o.T + b_o) if reset_after else (r * last) @ w_o.T + b_o
        last = (1 - z) * np.tanh(x_o + reset) + z * last
        outputs.append(last)

    check("gru", np.stack(outputs), last, x=X, initial_h=h, direction=direction,
          output_sequence=True, reset_after=reset_after,
          **constants((weight_ih, weight_hh, bias)))
