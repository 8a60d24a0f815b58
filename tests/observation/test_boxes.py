import torch

from diswot.observation.boxes import box_dicts, is_boxes
from diswot.observation.rows import is_dense


def test_boxes_as_torchvision_takes_them():
    targets = torch.tensor(
        [
            [[1, 2, 5, 6, 0, 0], [0, 0, 3, 3, 2, 1], [2, 2, 4, 8, 2, 0]],
            [[0, 0, 0, 0, -1, 0], [0, 0, 0, 0, -1, 0], [0, 0, 0, 0, -1, 0]],
        ],
        dtype=torch.float32,
    )
    first, second = box_dicts(targets)
    assert first["boxes"].tolist() == [[1, 2, 5, 6], [2, 2, 4, 8]]  # without the crowd
    assert first["labels"].tolist() == [1, 3]
    assert second["boxes"].shape == (0, 4)
    assert second["labels"].dtype == torch.int64


def test_boxes_masks_and_labels_are_told_apart():
    boxes, masks = torch.zeros(2, 3, 6), torch.zeros(2, 3, 6, dtype=torch.int64)
    assert [is_boxes(boxes), is_boxes(masks), is_boxes(torch.zeros(2))] == [True, False, False]
    assert [is_dense(boxes), is_dense(masks)] == [False, True]
