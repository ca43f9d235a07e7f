"""Measures speed beside a baseline; the last line printed is one JSON object.

python -m kpose.benchmark input    reading and batching records, against cropping photographs anew
python -m kpose.benchmark train    the training engine, against stock keras.Model.fit
python -m kpose.benchmark serve    the exported signature: latency, throughput, share of preprocessing
python -m kpose.benchmark write    writing records, against the plain way
"""

import json

from absl import flags

from kpose import cli

FLAGS = cli.flag_set()
_RUNS = flags.DEFINE_integer(
    "runs", 5, "How often each of the compared things is timed, in turn.", lower_bound=1, flag_values=FLAGS
)


def main(name):
    from kpose import benchmarking

    figures = benchmarking.measure(name, _RUNS.value)
    print(json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in figures.items()}))


def console():
    cli.run(main, FLAGS, __doc__, choices=("input", "train", "serve", "write"))


if __name__ == "__main__":
    console()
