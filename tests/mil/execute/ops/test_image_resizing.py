import numpy as np
import pytest

from tests.mil.operations import check, const, floats

X = floats(1, 2, 3, 4)
RAMP = np.array([[[0, 1]]], np.float32)
TABLE = {  # of coremltools' documentation: where [0, 1] is sampled
    ("UNALIGN_CORNERS", 5): [0, 0.1, 0.5, 0.9, 1],
    ("STRICT_ALIGN_CORNERS", 5): [0, 0.25, 0.5, 0.75, 1],
    ("ALIGN_CORNERS", 5): [0, 0.25, 0.5, 0.75, 1],
    ("DEFAULT", 5): [0, 0.4, 0.8, 1, 1],
    ("OFFSET_CORNERS", 5): [0.1, 0.3, 0.5, 0.7, 0.9],
    ("UNALIGN_CORNERS", 6): [0, 0, 1 / 3, 2 / 3, 1, 1],
    ("ALIGN_CORNERS", 6): [0, 0.2, 0.4, 0.6, 0.8, 1],
    ("DEFAULT", 6): [0, 1 / 3, 2 / 3, 1, 1, 1],
    ("OFFSET_CORNERS", 6): [1 / 12, 0.25, 5 / 12, 7 / 12, 0.75, 11 / 12],
    ("ALIGN_CORNERS", 1): [0.5],
    ("STRICT_ALIGN_CORNERS", 1): [0],
}


@pytest.mark.parametrize(("mode", "size"), TABLE)
def test_points_of_linear_resizing(mode, size):
    expected = np.array([[TABLE[mode, size]]], np.float32)

    check("resize_bilinear", expected, x=RAMP, target_size_height=1, target_size_width=size,
          sampling_mode=mode)
    check("resize", expected, x=RAMP, shape=[1, size], resized_dims=const(np.array(2, np.uint8)),
          sampling_mode=mode)


@pytest.mark.parametrize(("arguments", "mode"), [
    ({}, "ALIGN_CORNERS"), ({"align_corners": False}, "UNALIGN_CORNERS"),
    ({"align_corners": False, "half_pixel_centers": False}, "DEFAULT"),
])
def test_upsample_bilinear(arguments, mode):
    expected = np.array([[TABLE[mode, 6]]], np.float32)

    check("upsample_bilinear", expected, x=RAMP, scale_factor_width=3, **arguments)


def test_linear_resizing_of_both_dimensions_is_of_one_after_the_other():
    rows = (X[:, :, [0, 0, 1, 1, 2]] + X[:, :, [0, 1, 1, 2, 2]]) / 2

    check("resize_bilinear", rows, x=X, target_size_height=5, target_size_width=4,
          sampling_mode="ALIGN_CORNERS")


def test_nearest_neighbours():
    doubled = X.repeat(2, -2).repeat(3, -1)

    check("upsample_nearest_neighbor", doubled, x=X, scale_factor_height=2, scale_factor_width=3)
    check("upsample_nearest_neighbor", X.repeat(2, -2), x=X, scale_factor_height=2.0)
    check("resize_nearest_neighbor", X[:, :, [0, 1]][..., [0, 0, 1, 2, 2, 3]], x=X,
          target_size_height=2, target_size_width=6)


def test_resize_keeps_a_size_of_zero():
    check("resize", X[..., [0, 2]], x=X, shape=[9, 0, 2], interpolation_mode="NEAREST_NEIGHBOR",
          resized_dims=const(np.array(2, np.uint8)))


def test_crop():
    check("crop", X[:, :, 1:, 1:-2], x=X, crop_height=[1, 0], crop_width=[1, 2])


def test_resize_takes_the_nearest_point_and_halves_go_down():
    expected = X[:, :, [0, 1, 1, 2, 2]][..., [0, 0, 1, 1, 2, 2, 3, 3]]

    check("resize", expected, x=X, shape=[5, 8], interpolation_mode="NEAREST_NEIGHBOR",
          resized_dims=const(np.array(2, np.uint8)))


SQUARE = np.array([11, 22, 33, 44], np.float32).reshape(1, 1, 2, 2)
POINTS = np.array([-1, -2, -3.7, -1, 0, 0, 3.5, 1.2], np.float32).reshape(1, 2, 2, 2)


@pytest.mark.parametrize(("modes", "expected"), [  # of coremltools' tests of iOS 15
    (("bilinear", "constant", 6.17, "normalized_minus_one_to_one", True),
     [8.585, 6.17, 27.5, 6.17]),
    (("nearest", "border", -1.0, "unnormalized", False), [11, 11, 11, 44]),
    (("bilinear", "reflection", -1.0, "normalized_zero_to_one", True), [22, 36.3, 11, 34.1]),
    (("nearest", "symmetric", -1.0, "normalized_zero_to_one", False), [22, 33, 11, 33]),
])
def test_resample(modes, expected):
    names = ("sampling_mode", "padding_mode", "padding_value", "coordinates_mode", "align_corners")

    check("resample", np.array(expected, np.float32).reshape(1, 1, 2, 2), x=SQUARE,
          coordinates=POINTS, **dict(zip(names, modes, strict=True)))


def test_affine_turns_an_image():
    quarter = const(np.array([[0, -1, 0, 1, 0, 0]], np.float32))  # x' = -y, y' = x

    check("affine", np.rot90(SQUARE, 1, (2, 3)).copy(), x=SQUARE,
          transform_matrix=quarter, output_height=2, output_width=2, sampling_mode="bilinear",
          padding_mode="constant", padding_value=0.0, align_corners=True,
          coordinates_mode="normalized_minus_one_to_one")


@pytest.mark.parametrize(("mode", "box"), [
    ("CORNERS_HEIGHT_FIRST", [0, 1, 1, 3]), ("CORNERS_WIDTH_FIRST", [1, 0, 3, 1]),
    ("CENTER_SIZE_HEIGHT_FIRST", [0.5, 2, 1, 2]), ("CENTER_SIZE_WIDTH_FIRST", [2, 0.5, 2, 1]),
])
def test_crop_resize_of_a_box(mode, box):
    boxes = np.array([box], np.float32)
    given = {"x": X, "target_height": 2, "target_width": 3, "sampling_mode": "ALIGN_CORNERS",
             "box_coordinate_mode": mode}
    expected = X[:, :, :2, 1:]

    check("crop_resize", expected, boxes=boxes, **given)
    check("crop_resize", expected[None], roi=boxes.reshape(1, 1, 4, 1, 1), **given)


def test_crop_resize_pads_what_lies_outside_and_knows_the_image():
    x = np.concatenate([X, X + 100])
    roi = np.array([1, -1, 0, 1, 0], np.float32).reshape(1, 1, 5, 1, 1)
    expected = np.stack([np.full(2, 7.0), x[1, :, 0, 0], x[1, :, 1, 0]], -1)

    check("crop_resize", expected.reshape(1, 1, 2, 3, 1).astype(np.float32), x=x, roi=roi,
          target_height=3, target_width=1, sampling_mode="ALIGN_CORNERS", pad_value=7.0)
