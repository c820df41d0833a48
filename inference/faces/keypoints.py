"""The 133 points of COCO-WholeBody: 17 of the body, 6 of the feet, 68 of the face, 42 of hands."""

from __future__ import annotations

#: How many points there are.
KEYPOINTS = 133
#: Those of the face, in the order of iBUG-68.
FACE = slice(23, 91)

#: Nose, then left and right of eyes, ears, shoulders, elbows, wrists, hips, knees, ankles in turn.
_BODY = (0, *(point for left in range(1, 17, 2) for point in (left + 1, left)))
#: Large toe, small toe, heel: left, then right.
_FEET = (20, 21, 22, 17, 18, 19)
#: Runs that go from one side of a face to the other: jaw, brows, bridge of the nose (which lies in
#: the middle, point by point), nostrils, upper lids, lower lids, outer and inner line of the lips.
_FACE = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *range(27, 31),
    *range(35, 30, -1),
    *range(45, 41, -1), *range(47, 45, -1),
    *range(39, 35, -1), *range(41, 39, -1),
    *range(54, 47, -1), *range(59, 54, -1),
    *range(64, 59, -1), *range(67, 64, -1),
)  # fmt: skip
#: The left one, then the right one.
_HANDS = (*range(112, 133), *range(91, 112))

#: For each point the one that it becomes in a mirrored picture: left is right, and right is left.
MIRRORED = (*_BODY, *_FEET, *(FACE.start + point for point in _FACE), *_HANDS)
