"""Problems of the input. They stop the write, or the write skips and counts them (`--on_error`)."""

import collections

from absl import logging

from kpose.core.errors import InputError

POLICIES = ("stop", "skip")
# Number of messages that are kept of each kind of problem.
EXAMPLES = 3

# The kinds of problem, as the manifest counts them.
DUPLICATE_IMAGE = "an image with the id of another"
DUPLICATE_PERSON = "a person with the id of another"
BAD_ENTRY = "an entry without a required field"
NO_IMAGE_ENTRY = "a person of an image that is not listed"
BAD_KEYPOINTS = "keypoints that do not fit the skeleton"
OTHER_JOINTS = "keypoints of other joints"
OUTSIDE = "a box outside its image"
BAD_IMAGE = "an image that is missing, damaged or too large"
OTHER_SIZE = "an image of another size than its labels were made for"


class Problems:
    """Raises or counts problems.

    Args:
        on_error: "stop": the first problem raises `InputError`; "skip": each problem is counted.

    Attributes:
        counts: Counter of kind -> number skipped.
        examples: kind -> its first messages, at most `EXAMPLES`.

    Raises:
        InputError: `on_error` is not one of `POLICIES`.
    """

    def __init__(self, on_error="stop"):
        if on_error not in POLICIES:
            raise InputError(f"on_error is {on_error!r}: use one of {', '.join(POLICIES)}")
        self.on_error = on_error
        self.counts = collections.Counter()
        self.examples = {}

    def report(self, kind, message, count=1):
        """Raises `InputError` with the message, or counts the problem.

        Args:
            kind: one of the kinds above.
            message: what is wrong and where, in one line.
            count: number of problems to count.
        """
        if self.on_error == "stop":
            raise InputError(f"{message} (--on_error=skip skips and counts such input)")
        self.counts[kind] += count
        examples = self.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(message)

    def add(self, counts, examples):
        """Adds the counts and examples of another process."""
        self.counts.update(counts)
        for kind, messages in examples.items():
            known = self.examples.setdefault(kind, [])
            known += messages[: EXAMPLES - len(known)]

    def log(self):
        """Logs the counts, each with one example."""
        for kind, count in self.counts.most_common():
            logging.warning("skipped %d: %s; for example: %s", count, kind, self.examples[kind][0])
