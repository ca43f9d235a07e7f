"""Limits on a client's images and boxes, and the texts of the errors."""

# Pixels from the image's corner. Beyond it, float32 cannot hold fractions of a pixel.
FARTHEST = 1e6
# What is wrong with a box, in the order of the checks.
NOT_FINITE = "holds a NaN or an infinity"
TOO_FAR = f"holds a number beyond {FARTHEST:.0f}"
EMPTY = "has no width or no height"
