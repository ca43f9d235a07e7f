"""Limits on images and boxes of strangers, and the texts of the errors."""

# Pixels from the image's corner. Beyond it, float32 cannot hold fractions of a pixel.
FARTHEST = 1e6
# What is wrong with a box, in the order of the checks.
NOT_FINITE = "holds a NaN or an infinity"
TOO_FAR = f"holds a number beyond {FARTHEST:.0f}"
EMPTY = "has no width or no height"
# What is wrong with an answer: the weights hold a NaN, or values that overflow.
NO_ANSWER = "gets no finite keypoints from this model: train or export it again"

# Pixels that a request or an image file may announce: WORK and WORK_PER_BYTE more for each byte.
# Each scan of a JPEG counts all pixels, because its decoder visits them again. A photo has 1 to 10
# pixels per byte, and up to 18 scans if it is progressive.
WORK, WORK_PER_BYTE = 500_000_000, 200
# Boxes of one request. Each costs one pass through the network.
MAX_BOXES = 10_000
