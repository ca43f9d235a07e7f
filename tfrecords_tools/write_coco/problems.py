"""What is wrong with the input: it stops the work, or is left out and counted (`--on_error`)."""

import collections

from absl import logging

from kpose.core.errors import InputError

POLICIES = ("stop", "skip")
# Of each kind this many are told by name.
EXAMPLES = 3

# The kinds of problem, as the manifest counts them.
DUPLICATE_IMAGE = "an image with the id of another"
DUPLICATE_PERSON = "a person with the id of another"
BAD_ENTRY = "an entry without what it needs"
NO_IMAGE_ENTRY = "a person of an image that is not listed"
BAD_KEYPOINTS = "keypoints that are not as many numbers as the skeleton wants"
OUTSIDE = "a box wholly outside its image"
BAD_IMAGE = "an image that is missing, damaged or too large"
OTHER_SIZE = "an image of another size than its labels were made for"


class Problems:
    """Meets each problem by the policy.

    Args:
        on_error: "stop": the first problem is an `InputError`; "skip": what has it is left out and counted.

    Attributes:
        counts: kind -> how many were skipped.
        examples: kind -> messages of the first of them.
    """

    def __init__(self, on_error="stop"):
        if on_error not in POLICIES:
            raise InputError(f"on_error {on_error!r}: there are {', '.join(POLICIES)}")
        self.on_error = on_error
        self.counts = collections.Counter()
        self.examples = {}

    def meet(self, kind, message, count=1):
        """Raises `InputError(message)`, or counts `count` of this kind."""
        if self.on_error == "stop":
            raise InputError(f"{message} (--on_error=skip leaves such out and counts them)")
        self.counts[kind] += count
        examples = self.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(message)

    def add(self, counts, examples):
        """Takes in what another process counted."""
        self.counts.update(counts)
        for kind, messages in examples.items():
            known = self.examples.setdefault(kind, [])
            known += messages[: EXAMPLES - len(known)]

    def log(self):
        for kind, count in self.counts.most_common():
            logging.warning("skipped %d: %s; such as: %s", count, kind, self.examples[kind][0])
