import numpy as np
import pytest

from tests.mil.operations import check, const, floats

X = floats(2, 3, 4)
IMAGE = np.arange(2 * 8 * 4 * 6, dtype=np.float32).reshape(2, 8, 4, 6)


@pytest.mark.parametrize(("axes", "shape"), [
    ([0], (1, 2, 3, 4)), ([-1], (2, 3, 4, 1)), ([3, 1], (2, 1, 3, 1, 4)),
    ([-1, -3], (2, 3, 1, 4, 1)),
])
def test_expand_dims(axes, shape):
    check("expand_dims", X.reshape(shape), x=X, axes=axes)


@pytest.mark.parametrize(("shape", "expected"), [
    ([4, 6], (4, 6)), ([-1, 4], (6, 4)), ([0, 2, -1], (2, 2, 6)), ([-1, 0], (6, 4)),
    ([0, 0, 2, -1], (1, 2, 2, 6)),
])
def test_reshape(shape, expected):
    check("reshape", X.reshape(expected), x=X, shape=shape)


def test_reshape_to_a_shape_that_is_known_at_run_time():
    check("reshape", X.reshape(4, 6), x=X, shape=np.array([4, -1], np.int32))


def test_reshape_like():
    check("reshape_like", X.reshape(6, 4), x=X, ref_tensors=[floats(6, 9), floats(7, 4)],
          begins=[np.array(0, np.int32), np.array(1, np.int32)],
          ends=[np.array(1, np.int32), np.array(0, np.int32)],
          end_masks=[np.array(False), np.array(True)])


def test_reverse():
    check("reverse", X[:, ::-1], x=X, axes=[1])
    check("reverse", X[::-1, ::-1, ::-1], x=X)


def test_reverse_sequence():
    expected = X.copy()
    expected[0, :2] = X[0, 1::-1]
    expected[1, :3] = X[1, ::-1]

    check("reverse_sequence", expected, x=X, lengths=np.array([2, 3], np.int32), seq_axis=1)


@pytest.mark.parametrize(("arguments", "expected"), [
    ({"begin": [0, 1, 1], "end": [2, 3, -1]}, X[0:2, 1:3, 1:-1]),
    ({"begin": [0, 0, 3], "end": [2, 3, 0], "stride": [1, 2, -1]}, X[0:2, 0:3:2, 3:0:-1]),
    ({"begin": [0, 0, 3], "end": [2, 9, 0], "stride": [1, 1, -2],
      "end_mask": [False, False, True]}, X[:, :, 3::-2]),
    ({"begin": [1, 7, 2], "end": [2, 2, 9], "begin_mask": [False, True, False]}, X[1:2, :2, 2:]),
    ({"begin": [1, 0, -1], "end": [0, 0, 0], "end_mask": [False, True, False],
      "squeeze_mask": [True, False, True]}, X[1, :, -1]),
    ({"begin": [1, 2, 3], "end": [0, 0, 0], "squeeze_mask": [True] * 3}, X[1, 2, 3]),
])
def test_slice_by_index(arguments, expected):
    check("slice_by_index", expected, x=X, **arguments)


def test_slice_by_index_with_bounds_known_at_run_time():
    check("slice_by_index", X[1:2, 0:3, 1:4], x=X, begin=np.array([1, 0, 1], np.int32),
          end=np.array([2, 3, 4], np.int32))


def test_slice_by_size():
    check("slice_by_size", X[1:2, :, 2:4], x=X, begin=[1, 0, -2], size=[1, -1, 2])


@pytest.mark.parametrize("stride", [None, [1, 1, 2], [1, 1, -1]])
def test_slice_update_changes_a_copy(stride):
    begin, end = ([0, 1, 3], [1, 3, 1]) if stride == [1, 1, -1] else ([0, 1, 0], [1, 3, 3])
    where = tuple(slice(*s) for s in zip(begin, end, stride or [1] * 3, strict=True))
    expected = X.copy()
    update = floats(*expected[where].shape, seed=1)
    expected[where] = update

    check("slice_update", expected, x=X, update=update, begin=begin, end=end, stride=stride)


def test_squeeze():
    x = floats(1, 3, 1, 2)

    check("squeeze", x.reshape(3, 2), x=x)
    check("squeeze", x.reshape(1, 3, 2), x=x, axes=[-2])


def test_transpose():
    check("transpose", X.transpose(2, 0, 1), x=X, perm=[2, 0, 1])
    check("transpose", X.transpose(0, 2, 1), x=X, perm=[0, -1, -2])


def test_sliding_windows():
    expected = np.stack([X[:, :, i:i + 2] for i in (0, 2)], 2)

    check("sliding_windows", expected, x=X, axis=-1, size=2, stride=2)


def test_depth_to_space_takes_blocks_from_the_first_channels():
    expected = np.zeros((2, 2, 8, 12), np.float32)
    for row in range(2):
        for column in range(2):
            first = (row * 2 + column) * 2
            expected[:, :, row::2, column::2] = IMAGE[:, first:first + 2]

    check("depth_to_space", expected, x=IMAGE, block_size=2)
    check("space_to_depth", IMAGE, x=expected, block_size=2)


def test_pixel_shuffle_takes_blocks_from_neighbouring_channels():
    expected = np.zeros((2, 2, 8, 12), np.float32)
    for row in range(2):
        for column in range(2):
            expected[:, :, row::2, column::2] = IMAGE[:, row * 2 + column::4]

    check("pixel_shuffle", expected, x=IMAGE, upscale_factor=2)
    check("pixel_unshuffle", IMAGE, x=expected, downscale_factor=const(np.array(2, np.uint8)))


def test_space_to_batch_and_back():
    padded = np.pad(IMAGE, ((0, 0), (0, 0), (1, 1), (0, 0)))
    batches = [padded[:, :, row::3, column::2] for row in range(3) for column in range(2)]
    expected = np.concatenate(batches)

    check("space_to_batch", expected, x=IMAGE, block_shape=[3, 2], paddings=[[1, 1], [0, 0]])
    check("batch_to_space", IMAGE, x=expected, block_shape=[3, 2], crops=[[1, 1], [0, 0]])
