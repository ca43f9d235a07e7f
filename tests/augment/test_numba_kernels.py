"""Kernels of the host: the warp, compared with NumPy. test_photometric.py tests the other steps."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.augment import numba_kernels


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4),
    st.tuples(st.floats(-40, 60, width=32), st.floats(-40, 60, width=32)),
)
def test_the_host_s_warp_is_bilinear_interpolation_for_any_map(stored, size, matrix, corner):
    """Compared with NumPy, pixel by pixel. For any map, nothing outside the image is read."""
    image = np.random.default_rng(0).integers(0, 256, (*stored, 3), np.uint8)
    row = np.zeros((1, numba_kernels.NUM_PARAMETERS), np.float32)
    row[0, :6] = matrix[0], matrix[1], corner[0], matrix[2], matrix[3], corner[1]
    row[0, numba_kernels.THRESHOLD], row[0, numba_kernels.MASK], row[0, numba_kernels.SHARPNESS] = 256, 255, 1
    ours = numba_kernels.augment(image[None], row, size, True, False)[0].astype(float)
    framed = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)))
    for r in range(size[0]):
        for c in range(size[1]):
            x = matrix[0] * c + (matrix[1] * r + corner[0]) + 1
            y = matrix[2] * c + (matrix[3] * r + corner[1]) + 1
            left, top = int(np.floor(x)), int(np.floor(y))
            if not (0 <= left <= stored[1] and 0 <= top <= stored[0]):
                # Rounding decides whether a pixel at the edge is inside: it is nearly black.
                assert ours[r, c].max() <= 1
                continue
            fx, fy = x - left, y - top
            window = framed[top : top + 2, left : left + 2]
            expected = (window[0] * (1 - fy) + window[1] * fy).T @ [1 - fx, fx]
            np.testing.assert_allclose(ours[r, c], expected, atol=0.6)
