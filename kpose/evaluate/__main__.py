"""Evaluates a trained run: PCP, PDJ and OKS AP in original pixels, compared with the mean pose.

python -m kpose.evaluate --workdir=run --records='records/val-*' --annotations=person_keypoints_val2017.json
python -m kpose.evaluate --workdir=run --images=val2017.zip --annotations=person_keypoints_val2017.json
python -m kpose.evaluate --results=predictions/keypoints.json --annotations=person_keypoints_val2017.json
python -m kpose.evaluate --compare first_run second_run
python -m kpose.evaluate --workdir=run --records='records/train-*' --calibrate

The boxes are those of the labels. With --results, they are those that kpose.predict used: a
detector's boxes, or a file of boxes.

Records store each person's crop as JPEG. With --images the crops are cut from the images, as
kpose.predict does: without --records for all labelled persons of --annotations, with --records for
the persons of the records.

With --calibrate, it fits the calibration of the run's scores on the records and writes it into the
run's folder, instead of evaluating. Predictions, evaluations and exports of the same checkpoint then
have scores that are probabilities.
"""

import os

from absl import flags

from kpose.core import cli, skeleton_files, skeletons

FLAGS = cli.flag_set()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the training run, or the name of a shipped model. Required, except with --results or --compare.",
    flag_values=FLAGS,
)
_RECORDS = flags.DEFINE_string(
    "records",
    None,
    "Glob of the records to evaluate on, in quotes. Required, except with --images, --results or --compare.",
    flag_values=FLAGS,
)
_IMAGES = flags.DEFINE_string(
    "images",
    None,
    "Folder or .zip file of the images: evaluate on crops cut from them, not on the crops stored in records.",
    flag_values=FLAGS,
)
_COMPARE = flags.DEFINE_list(
    "compare",
    [],
    "FIRST SECOND: compare two runs, or two folders that this command wrote, on the same persons. With --output_dir, "
    "the comparison is also written to compare.json.",
    flag_values=FLAGS,
)
_RESULTS = flags.DEFINE_string(
    "results",
    None,
    "File of keypoint results that kpose.predict wrote, to evaluate instead of a run. The results are matched with the "
    "persons of --annotations by their boxes.",
    flag_values=FLAGS,
)
_ANNOTATIONS = flags.DEFINE_string(
    "annotations",
    None,
    "COCO file with the persons of --records; adds OKS AP. With --results, or with --images and no --records: the "
    "labels; required.",
    flag_values=FLAGS,
)
_PIXEL_OFFSET = flags.DEFINE_float(
    "pixel_offset",
    None,
    "Added to the coordinates of the joints in --annotations. Default: 0.5, for pixel indices as in COCO. Give the "
    "value that write_coco needs for this file. Ignored with --records, which have their own.",
    flag_values=FLAGS,
)
_SKELETON = flags.DEFINE_string(
    "skeleton",
    skeletons.AUTO,
    "With --results: the skeleton of their keypoints, in its order: coco, lsp, or a .json or .yaml file, as for "
    "write_coco. auto: that of the category in --annotations. A run has its own skeleton.",
    flag_values=FLAGS,
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir",
    None,
    "Folder for metrics.json, keypoints.json, report.html and pictures. Default: WORKDIR/evaluation; with --results, "
    'the folder "evaluation" beside that file.',
    flag_values=FLAGS,
)
_FLIP_TEST = flags.DEFINE_bool(
    "flip_test", False, "Average each prediction with the prediction for the mirrored image.", flag_values=FLAGS
)
_BEST = flags.DEFINE_bool(
    "best", False, "Use the checkpoint with the best validation score instead of the newest one.", flag_values=FLAGS
)

_CALIBRATE = flags.DEFINE_bool(
    "calibrate",
    False,
    "Fit the calibration of the scores on --records and write WORKDIR/calibration.json, instead of evaluating. "
    "Evaluate on other records after it.",
    flag_values=FLAGS,
)


def main():
    if _IMAGES.value and (_COMPARE.value or _RESULTS.value):
        raise cli.InputError("--images is for the evaluation of a run: leave it out with --results and --compare")
    if _CALIBRATE.value and (_COMPARE.value or _RESULTS.value):
        raise cli.InputError("--calibrate is for a run: leave it out with --results and --compare")
    if _SKELETON.value != skeletons.AUTO and not _RESULTS.value:
        raise cli.InputError("--skeleton is for --results: a run has the skeleton of its records")
    if _COMPARE.value:
        _compare(_COMPARE.value)
    elif _RESULTS.value:
        _evaluate_results()
    elif _CALIBRATE.value:
        _calibrate()
    else:
        _evaluate_run()


def _evaluate_run():
    for flag in (_WORKDIR, _ANNOTATIONS if _IMAGES.value and not _RECORDS.value else _RECORDS):
        if not flag.value:
            raise cli.InputError(f"--{flag.name} is missing: {FLAGS[flag.name].help}")
    from kpose.evaluate import on_records

    on_records.evaluate(
        _WORKDIR.value,
        _RECORDS.value,
        _ANNOTATIONS.value,
        _OUTPUT_DIR.value,
        _FLIP_TEST.value,
        _BEST.value,
        _IMAGES.value,
        _PIXEL_OFFSET.value,
    )


def _calibrate():
    for flag in (_WORKDIR, _RECORDS):
        if not flag.value:
            raise cli.InputError(f"--{flag.name} is missing: --calibrate needs a run and records")
    useless = [flag.name for flag in (_IMAGES, _ANNOTATIONS, _OUTPUT_DIR, _FLIP_TEST) if flag.value]
    if useless:
        raise cli.InputError(f"--{useless[0]} has no effect with --calibrate: leave it out")
    from kpose.evaluate import calibrate

    calibrate.calibrate(_WORKDIR.value, _RECORDS.value, _BEST.value)


def _compare(folders):
    from kpose.core import files
    from kpose.evaluate import two_runs

    if len(folders) != 2:
        raise cli.InputError(f"--compare={','.join(folders)}: give two folders, as in --compare FIRST SECOND")
    if _OUTPUT_DIR.value:
        files.check_folder_for_output(_OUTPUT_DIR.value)
    table = two_runs.compare(*folders)
    print("\n".join(two_runs.describe(table)))
    if _OUTPUT_DIR.value:
        files.write_json(os.path.join(_OUTPUT_DIR.value, "compare.json"), table)


def _evaluate_results():
    if not _ANNOTATIONS.value:
        raise cli.InputError(f"--annotations is missing: {FLAGS['annotations'].help}")
    from kpose.evaluate import on_detections

    on_detections.evaluate(
        _RESULTS.value,
        _ANNOTATIONS.value,
        _OUTPUT_DIR.value or os.path.join(os.path.dirname(_RESULTS.value), "evaluation"),
        _PIXEL_OFFSET.value,
        skeletons.AUTO if _SKELETON.value == skeletons.AUTO else skeleton_files.find(_SKELETON.value),
    )


def _join_compared(argv):
    """The arguments with `--compare A B` written as `--compare=A,B`, the form that absl parses."""
    place = next((i for i, word in enumerate(argv) if word.partition("=")[0] == "--compare"), None)
    if place is None:
        return argv
    end = place + 1
    while end < len(argv) and not argv[end].startswith("-"):
        end += 1
    folders = [word for word in (argv[place].partition("=")[2], *argv[place + 1 : end]) if word]
    return [*argv[:place], f"--compare={','.join(folders)}", *argv[end:]]


def console():
    cli.run(main, FLAGS, __doc__, prepare=_join_compared)


if __name__ == "__main__":
    console()
