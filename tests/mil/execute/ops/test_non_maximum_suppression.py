"""Boxes that remain of those that overlap, in both of MIL's forms."""

import numpy as np
import pytest

from tests.mil.operations import check

RNG = np.random.default_rng(0)
BOXES = (RNG.random((2, 12, 4)) * [60, 60, 50, 50]).astype(np.float32)
SCORES = RNG.permutation(np.linspace(-1, 1, 2 * 12 * 3)).reshape(2, 12, 3).astype(np.float32)


def overlap(a, b):
    """Intersection over union of two boxes (centre x, centre y, width, height)."""
    sides = [min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2)
             - max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2) for i in (0, 1)]
    shared = max(sides[0], 0) * max(sides[1], 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared) if shared else 0


def selected(boxes, scores, iou, threshold, is_per_class):
    """The indices of the boxes that remain, box by box, as the operation's page has it."""
    found = []
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i].max()):
        rivals = [f for f in found
                  if not is_per_class or scores[f].argmax() == scores[index].argmax()]
        if scores[index].max() >= threshold and all(
                overlap(boxes[index], boxes[rival]) <= iou for rival in rivals):
            found.append(index)
    return found


def filled(rows, count):
    """Rows, and zeros up to `count`."""
    return np.concatenate([rows, np.zeros((count - len(rows), *rows.shape[1:]), rows.dtype)])


@pytest.mark.parametrize("is_per_class", [False, True])
@pytest.mark.parametrize("iou", [0.01, 0.2, 0.9])
@pytest.mark.parametrize("count", [3, 12, 15])
def test_overlapping_boxes_go(count, iou, is_per_class):
    found = [selected(b, s, iou, -9, is_per_class)[:count]
             for b, s in zip(BOXES, SCORES, strict=True)]
    boxes, scores = (np.stack([filled(x[i], count) for x, i in zip(given, found, strict=True)])
                     for given in (BOXES, SCORES))
    indices = np.array([i + [-1] * (count - len(i)) for i in found], np.int32)
    counts = np.array([len(i) for i in found], np.int32)

    options = {"iou_threshold": iou, "max_boxes": count, "per_class_suppression": is_per_class}
    check("non_maximum_suppression", boxes, scores, indices, counts, boxes=BOXES, scores=SCORES,
          score_threshold=-9.0, **options)
    check("non_maximum_suppression", boxes.swapaxes(1, 2), scores.swapaxes(1, 2), indices,
          boxes=BOXES.swapaxes(1, 2).copy(), scores=SCORES.swapaxes(1, 2).copy(), **options)


def test_overlaps_do_matter_here():
    kept = {(iou, per_class): len(selected(BOXES[0], SCORES[0], iou, -9, per_class))
            for iou in (0.01, 0.2, 0.9) for per_class in (False, True)}

    assert kept[0.01, False] < kept[0.01, True] <= kept[0.9, True] <= 12
    assert kept[0.01, False] < kept[0.2, False] <= kept[0.9, False]


def test_boxes_below_the_score_threshold_go():
    """The numbers of coremltools' own test: the boxes are larger each, and touch nowhere."""
    boxes = np.arange(4, dtype=np.float32).repeat(4).reshape(1, 4, 4)
    scores = np.array([[[-3.5], [9.4], [2.3], [0.7]]], np.float32)

    check("non_maximum_suppression", boxes[:, 1:3], scores[:, 1:3], np.array([[1, 2]], np.int32),
          np.array([2], np.int32), boxes=boxes, scores=scores, iou_threshold=0.2,
          score_threshold=0.4, max_boxes=2, per_class_suppression=True)


def test_the_best_box_stays_though_it_is_below_the_score_threshold():
    boxes, scores = BOXES[:1, :3], np.array([[[-3], [-1], [-2]]], np.float32)

    check("non_maximum_suppression", np.stack([filled(boxes[0, 1:2], 2)]),
          np.stack([filled(scores[0, 1:2], 2)]), np.array([[1, -1]], np.int32),
          np.array([1], np.int32), boxes=boxes, scores=scores, iou_threshold=0.5,
          score_threshold=5.0, max_boxes=2)


def test_boxes_without_an_area_overlap_nothing():
    boxes = np.array([[[1, 1, 0, 0]] * 2], np.float32)
    scores = np.array([[[1], [2]]], np.float32)

    check("non_maximum_suppression", boxes.mT, scores[:, ::-1].mT,
          np.array([[1, 0]], np.int32), boxes=boxes.mT.copy(), scores=scores.mT.copy(),
          iou_threshold=0.0, max_boxes=2)
