"""Recipes: the fields of a training run, their defaults and their checks.

`default()` has every field with its default. A recipe in `configs/` is a Python file whose
`get_config()` starts from it and changes fields. The command line changes them further
(`--config.optimizer.learning_rate=0.01`). A recipe is checked before anything slow starts.

The module has more than 400 lines, because the fields are listed twice: with defaults and with ranges.
"""

import importlib.util
import os

from ml_collections import ConfigDict

from kpose.core import checks, files, geometry, skeleton_files, skeletons
from kpose.core.errors import InputError
from kpose.core.geometry import CONTINUOUS, INDICES


def default():
    """Every field of a recipe, with its default: the published network and data, one epoch."""
    config = ConfigDict()
    config.name = "default"  # The recipe's name, for logs and error messages.
    config.seed = 0  # Seed of initial weights, dropout, and order and augmentation of samples.
    config.epochs = 1  # Passes over the training records.
    config.steps = 0  # Length of the training in batches; 0: given by epochs.
    config.batch_size = 64  # Global batch size, divided among the replicas.
    config.precision = "auto"  # auto, float32, mixed_bfloat16, mixed_float16.
    config.xla = "auto"  # auto (on for accelerators), on, off.
    config.replicas = 0  # 0: all accelerators. On a CPU: number of logical devices.
    config.steps_per_execution = 0  # Steps in one call from Python; 0: 16 on accelerators, 1 on CPUs.
    config.checkpoint_every = 1000  # Steps between checkpoints; one is always written at the end of training.
    config.keep_checkpoints = 3  # Number of newest checkpoints to keep.
    config.evaluate_every = 1  # Epochs between evaluations on data.val; the last epoch is always evaluated.
    config.stop_after = 0  # Stop after this number of evaluations without a lower validation loss; 0: never.
    config.on_nan = "stop"  # If a loss or gradient is not finite: stop, skip the step, rollback to a checkpoint.
    config.on_bad_record = "stop"  # Damaged records: stop, skip (all records are read once before the first step).
    config.evaluate_batches = 0  # Batches of data.val in an evaluation; 0: all.
    config.log_every = 100  # Steps between TensorBoard scalars; log lines come by time.
    config.quick = False  # Set by RECIPE:quick. The batch size is rounded up to a multiple of the replicas.
    config.skeleton = skeletons.AUTO  # auto (that of the first data set), coco, lsp, or a .json or .yaml file.
    config.data = _data_fields()
    config.augment = _augment_fields()
    config.model = _model_fields()
    config.teacher = _teacher_fields()
    config.loss = _loss_fields()
    config.optimizer = _optimizer_fields()
    config.schedule = _schedule_fields()
    return config


def _data_fields():
    """Section `data`: records, and the part of each image in the network's input."""
    data = ConfigDict()
    data.train = ""  # Glob of training records; several, separated by commas, are mixed.
    data.weights = ()  # For several globs: each one's share of the samples; (): by number of records.
    data.cache = False  # Keep all decoded crops in memory.
    # Glob of validation records, or several sets: a=GLOB,b=GLOB; the first decides the best
    # checkpoint. Empty: no evaluation during training.
    data.val = ""
    # For cascade: globs of the records that measure the errors of the previous stage; empty: data.train.
    data.errors = ""
    data.padding = 1.0  # The network's input shows the box enlarged by this factor. Cascade: at least its base's.
    # Width / height of the rectangle around the box that is shown; 0: the box, stretched; -1: as in the
    # first records of data.train. The saved recipe holds the choice.
    data.aspect = 0.0
    # Frame of the labels: continuous (that of kpose.core.geometry), indices (pixel indices, half a
    # pixel less). Runs of kpose 0.1 have indices, and keep them when they are resumed.
    data.coordinates = CONTINUOUS
    data.shuffle_buffer = 10_000  # Number of encoded records in the shuffle buffer.
    data.changed = "refuse"  # If a run is continued, but its records are others: refuse, accept.
    return data


def _augment_fields():
    """Section `augment`: random changes to training samples."""
    augment = ConfigDict()
    augment.on = "host"  # host (in tf.data), device (in the training step).
    augment.flip = 0.0  # Probability of a horizontal flip, with left and right joints swapped.
    augment.rotation = 0.0  # Largest rotation in degrees, in both directions.
    augment.scale = (1.0, 1.0)  # (lowest, highest) factor of the size of the visible window.
    augment.shift = 0.0  # Largest shift of the window, as a fraction of its sides.
    augment.half_body = 0.0  # Probability of a window around the upper or the lower body only; needs `upper`.
    augment.cutout = 0.0  # Probability of a rectangle of the mean colour; joints in it count as occluded.
    augment.grey = 0.0  # Probability of a shift towards grey, by a random amount.
    augment.jitter = 0.0  # Brightness, contrast, saturation: factor 1 +- this. Hue: +- this / 10 turns.
    augment.solarise = 0.0  # Probability of inverting bright pixel values.
    augment.posterise = 0.0  # Probability of keeping only 2 to 6 bits of each channel.
    augment.sharpness = 0.0  # Probability of blurring or sharpening.
    augment.equalise = 0.0  # Probability of equalising the histogram.
    return augment


def _model_fields():
    """Section `model`: the network and its initial weights."""
    model = ConfigDict()
    model.name = "deeppose"  # deeppose, integral, backbone, movenet, cascade.
    model.input_size = (224, 224)  # (height, width) in pixels.
    model.filters = (96, 256, 384, 384, 256)  # For deeppose, integral (one a level), cascade: channels.
    model.kernels = (11, 5, 3, 3, 3)  # For deeppose: kernel sizes of the five convolutions.
    model.first_stride = 4  # For deeppose: stride of the first convolution.
    model.hidden = (4096, 4096)  # For deeppose, cascade: units of the hidden fully connected layers.
    model.fc_init = "small"  # For deeppose: initial weights of the fully connected layers: small, lecun.
    model.dropout = 0.6  # Dropout rate after each hidden fully connected layer.
    model.head_filters = 64  # For integral and the spatial head: channels of the top-down path.
    model.head_level = 1  # For the same: resolution of the heatmaps; 1: a quarter of the input, 2: an eighth.
    model.base = ""  # For cascade: workdir of the previous stage.
    model.sub_image = 32  # For cascade: side of the sub-images in pixels.
    model.sigma = 1.0  # For cascade: side of the sub-images in torso diameters.
    # For cascade: square (in original pixels), stretched (as the crop; networks of release 0.1).
    model.sub_image_shape = "square"
    model.batch_norm_momentum = 0.9  # Weight of the old value in the running statistics of BatchNorm.
    # For movenet: BatchNorm after each convolution, set so that the initial network is the same.
    model.batch_norm = False
    model.width = 1.0  # For movenet: factor of the number of channels.
    model.frozen_blocks = 0  # For movenet: number of first blocks that are not trained.
    model.backbone = "resnet18"  # For backbone: resnet18, resnet50, efficientnet_lite0.
    model.head = "pooled"  # For backbone: pooled (average pooling, fully connected), spatial (heatmaps).
    # Initial weights: a run's folder or a shipped model's name, with any joints, input size and head
    # (kpose/runs/carry_over.py). For backbone also a .pth, .h5 or .keras file, package:NAME, a keras_cv
    # preset; for movenet a .json file. Empty: random weights.
    model.weights = ""
    # For backbone: scale and padding of images. keras: those of keras_cv. torchvision: mean and
    # deviation of ImageNet, and torchvision's strides and padding. auto: those of the initial
    # weights; the saved recipe holds the choice.
    model.preprocessing = "auto"
    model.freeze_epochs = 0  # Number of first epochs in which the backbone is not trained.
    return model


def _teacher_fields():
    """Section `teacher`: a pose model whose keypoints are further targets."""
    teacher = ConfigDict()
    # A .json file of MoveNet's graph model, a run's folder or the name of a shipped model: its keypoints
    # are additional training targets.
    teacher.weights = ""
    teacher.width = 1.75  # For a .json file: factor of the channels: 1.0 for Lightning, 1.75 for Thunder.
    teacher.input_size = (256, 256)  # For a .json file: (height, width) of its input, multiples of 32.
    teacher.min_score = 0.3  # Joints that the teacher scores lower are not used.
    teacher.everywhere = False  # Use the teacher at labelled joints too; False: only at unlabelled ones.
    teacher.share = 1.0  # Factor of the teacher's part of the loss.
    return teacher


def _loss_fields():
    """Section `loss`: the loss."""
    loss = ConfigDict()
    # l2 (published: sum over the batch), masked_l2 (published, with visibility), l1, smooth_l1,
    # laplace, rle.
    loss.name = "l2"
    loss.beta = 0.02  # For smooth_l1: error at which the square ends, as a fraction of the crop.
    # For rle: authors (their code), paper, kpose_0.1 (release 0.1): see kpose/train/losses.py. auto:
    # authors; a run that was begun before this field keeps kpose_0.1. The saved recipe holds the choice.
    loss.weighting = "auto"
    loss.flow_layers = 6  # For rle: coupling layers of the flow.
    loss.flow_units = 64  # For rle: units of the hidden layers of the flow's networks.
    return loss


def _optimizer_fields():
    """Section `optimizer`: the optimiser."""
    optimizer = ConfigDict()
    optimizer.name = "sgd"  # sgd, adamw.
    optimizer.learning_rate = 0.001  # Peak learning rate, after the warm-up.
    # Factor of the learning rate of the last layers, whose numbers belong to single joints.
    optimizer.joints_factor = 1.0
    optimizer.momentum = 0.0  # For sgd.
    optimizer.weight_decay = 0.0  # Decoupled weight decay; not applied to biases and normalisation layers.
    optimizer.clip_norm = 0.0  # Largest global norm of the gradient; 0: no limit.
    optimizer.ema = 0.0  # Decay of the moving average of weights, for evaluation and export; 0: no average.
    return optimizer


def _schedule_fields():
    """Section `schedule`: the learning rate over the training."""
    schedule = ConfigDict()
    schedule.name = "constant"  # constant, step, cosine (to zero), flat_cosine (constant, then cosine to zero).
    schedule.warmup_steps = 0  # Steps of linear increase from zero.
    schedule.milestones = (0.7, 0.9)  # For step: fractions of the training at which the rate changes.
    schedule.factor = 0.1  # For step: factor of the rate at each milestone.
    schedule.flat = 0.5  # For flat_cosine: fraction of the training before the cosine.
    return schedule


# Field -> its allowed values.
CHOICES = {
    "precision": ("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    "xla": ("auto", "on", "off"),
    "augment.on": ("host", "device"),
    "data.coordinates": (CONTINUOUS, INDICES),
    "data.changed": ("refuse", "accept"),
    "on_nan": ("stop", "skip", "rollback"),
    "on_bad_record": ("stop", "skip"),
    "model.fc_init": ("small", "lecun"),
    "model.preprocessing": ("auto", "keras", "torchvision"),
    "loss.weighting": ("auto", "authors", "paper", "kpose_0.1"),
}
# Field -> (lowest, highest) allowed value, both included.
RANGES = {
    "seed": (0, 2**31 - 1),
    "epochs": (1, None),
    "steps": (0, None),
    "batch_size": (1, None),
    "replicas": (0, None),
    "steps_per_execution": (0, None),
    "checkpoint_every": (1, None),
    "keep_checkpoints": (1, None),
    "evaluate_every": (1, None),
    "evaluate_batches": (0, None),
    "stop_after": (0, None),
    "log_every": (1, None),
    "data.padding": (1.0, 10.0),
    "data.aspect": (geometry.OF_RECORDS, 10.0),
    "data.shuffle_buffer": (1, None),
    **{
        f"augment.{name}": (0.0, 1.0)
        for name in (
            *("flip", "shift", "half_body", "cutout"),
            *("grey", "jitter", "solarise", "posterise", "sharpness", "equalise"),
        )
    },
    "augment.rotation": (0.0, 180.0),
    "model.first_stride": (1, None),
    "model.head_filters": (1, None),
    "model.head_level": (0, None),
    "model.dropout": (0.0, 0.99),
    "model.sub_image": (4, None),
    "model.width": (0.25, 4.0),
    "model.frozen_blocks": (0, 17),
    "model.sigma": (0.1, 10.0),
    "model.batch_norm_momentum": (0.0, 1.0),
    "model.freeze_epochs": (0, None),
    "teacher.width": (0.25, 4.0),
    "teacher.min_score": (0.0, 1.0),
    "teacher.share": (0.0, None),
    "optimizer.learning_rate": (0.0, None),
    "optimizer.joints_factor": (0.0, 1000.0),
    "optimizer.momentum": (0.0, 1.0),
    "optimizer.weight_decay": (0.0, None),
    "optimizer.clip_norm": (0.0, None),
    "optimizer.ema": (0.0, 0.99999),
    "schedule.warmup_steps": (0, None),
    "schedule.factor": (0.0, 1.0),
    "schedule.flat": (0.0, 1.0),
    "loss.beta": (1e-6, 1.0),
    "loss.flow_layers": (2, None),
    "loss.flow_units": (1, None),
}
# Fields that may change when a run is resumed: its checkpoints do not depend on them.
RESUMABLE = (
    # The joints themselves are compared (`kpose.runs.workdir.check_skeleton`).
    "skeleton",
    "epochs",
    "steps",
    "xla",
    "replicas",
    "steps_per_execution",
    "checkpoint_every",
    "keep_checkpoints",
    "evaluate_every",
    "evaluate_batches",
    "stop_after",
    "log_every",
    "on_nan",
    "on_bad_record",
    "data.train",
    "data.val",
    "data.weights",
    "data.cache",
    "data.shuffle_buffer",
    "data.changed",
    "augment.on",
)


def check(config):
    """Raises `InputError` unless every field is known, of the right type and in its range.

    Modules that read a section add their own checks (`kpose.core.checks`) when they are imported.
    """
    fields, known = flatten(config), flatten(default())
    _check_fields(fields, known)
    for field, allowed in CHOICES.items():
        checks.choice(fields[field], field, allowed)
    for field, (lowest, highest) in RANGES.items():
        value = fields[field]
        if value != value or value < lowest or (highest is not None and value > highest):
            wanted = f"at least {lowest}" if highest is None else f"between {lowest} and {highest}"
            raise InputError(f"config.{field} is {value}: it must be {wanted}")
    if config.skeleton != skeletons.AUTO and not skeleton_files.is_file(config.skeleton):
        skeletons.get(config.skeleton)
    checks.run(config)
    if config.data.aspect != geometry.OF_RECORDS:
        geometry.check_aspect(config.data.aspect, config.model.input_size)
    if config.replicas and config.batch_size % config.replicas and not config.quick:
        raise InputError(f"config.batch_size {config.batch_size} cannot be divided among {config.replicas} replicas")


def _check_fields(fields, known):
    for field in fields:
        if field not in known:
            raise InputError(f"config has no field {field!r}{_suggestion(field, known)}")
    for field, value in known.items():
        if field not in fields:
            raise InputError(f"config has no value for {field!r}: start from kpose.config.default()")
        if type(fields[field]) is not type(value):
            raise InputError(
                f"config.{field} is {fields[field]!r}: it must be of type {type(value).__name__}, as in {value!r}"
            )


def _suggestion(field, known):
    import difflib

    near = difflib.get_close_matches(field, known, n=1)
    return f": did you mean {near[0]!r}?" if near else ""


def flatten(config):
    """A config as a flat dict: "optimizer.learning_rate" -> value; lists as tuples."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, (ConfigDict, dict)):
            flat |= {f"{key}.{inner}": v for inner, v in flatten(value).items()}
        else:
            flat[key] = tuple(value) if isinstance(value, list) else value
    return flat


# The changes of RECIPE:quick: enough steps to see that a recipe runs.
QUICK = {
    "quick": True,
    "steps": 20,
    "batch_size": 8,
    "log_every": 5,
    "checkpoint_every": 10,
    "evaluate_batches": 4,
    "schedule.warmup_steps": 5,
    "data.shuffle_buffer": 100,
}


def recipe_path(name):
    """The file of a recipe.

    Args:
        name: a path, or the name of a recipe that kpose ships: "deeppose", "configs/deeppose.py",
            "hardware/one_gpu".

    Raises:
        InputError: the file or recipe does not exist.
    """
    if os.path.isfile(name):
        return name
    folder, stem = os.path.split(os.path.splitext(name.removeprefix("configs/"))[0])
    path = os.path.join(_shipped_recipes(), folder, f"{stem}.py")
    if folder in ("", "hardware") and os.path.isfile(path):
        return path
    raise InputError(f"no recipe {name!r}: give a file, or one of those that kpose ships: {', '.join(shipped())}")


def shipped():
    """The names of the recipes that kpose ships, sorted."""
    return sorted(f[:-3] for f in os.listdir(_shipped_recipes()) if f.endswith(".py") and f != "__init__.py")


def resolve_flags(argv):
    """Command-line arguments with the file of the recipe in place of its name.

    The name of each --config.FIELD is checked. `--config=RECIPE:quick` becomes the recipe and the
    changes of `QUICK`. They come first, so that the other arguments override them in any order.

    Args:
        argv: the program's name and its arguments.

    Returns:
        The new list.

    Raises:
        InputError: the recipe does not exist or cannot be read, or a field is unknown.
    """
    recipe, others, known = [], [], flatten(default())
    arguments = iter(argv[1:])
    for argument in arguments:
        name, _, value = argument.lstrip("-").partition("=")
        if name == "config" and argument.startswith("-"):
            recipe = _recipe_flags(value or next(arguments, ""))
            continue
        field = name.removeprefix("config.")
        if name.startswith("config.") and field not in known:
            raise InputError(f"config has no field {field!r}{_suggestion(field, known)}")
        others.append(argument)
    return [argv[0], *recipe, *others]


def _recipe_flags(value):
    """The arguments that replace --config=`value`."""
    name, _, variant = value.partition(":")
    if variant not in ("", "quick"):
        raise InputError(f"--config={value}: a recipe has no variant {variant!r}; the only variant is 'quick'")
    path = recipe_path(name)
    load_recipe(path)
    changes = QUICK if variant else {}
    return [f"--config={path}", *(f"--config.{field}={changed}" for field, changed in changes.items())]


def _shipped_recipes():
    # In an installed kpose configs/ is the package kpose.configs; in a checkout it is beside kpose/.
    here = os.path.dirname(os.path.abspath(__file__))
    installed = os.path.join(here, "configs")
    return installed if os.path.isdir(installed) else os.path.join(os.path.dirname(here), "configs")


def load_recipe(name):
    """The `ConfigDict` of a recipe (see `recipe_path`); recipes use it to start from each other."""
    path = recipe_path(name)
    spec = importlib.util.spec_from_file_location("kpose_recipe", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.get_config()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: the recipe cannot be read: {type(error).__name__}: {error}") from None


def save(config, path):
    """Writes a config as JSON."""
    files.write_json(path, config.to_dict())


def load(path):
    """The config of a JSON file that `save` wrote; missing fields get their defaults.

    Raises:
        InputError: the file is missing, or is not such a config.
    """
    saved = files.read_json(path, "config of a training run")
    if not isinstance(saved, dict):
        raise InputError(f"{path}: not the config of a training run")
    config = from_fields(saved)
    check(config)
    return config


def from_fields(saved):
    """The config of a dict of fields as JSON holds them; missing fields get their defaults.

    Only `data.coordinates` becomes "indices": kpose 0.1, which lacked it, had these.
    """
    config = default()
    config.data.coordinates = INDICES
    model = saved.get("model")
    if isinstance(model, dict) and model.get("name") == "cascade":
        # Cascades of release 0.1 lack the field.
        config.model.sub_image_shape = "stretched"
    for name, value in _with_tuples(saved).items():
        if isinstance(value, dict) and isinstance(config.get(name), ConfigDict):
            config[name] = ConfigDict(config[name].to_dict() | value)
        else:
            config[name] = value
    return config


def _with_tuples(value):
    # JSON has lists only; recipes have tuples.
    if isinstance(value, dict):
        return {key: _with_tuples(inner) for key, inner in value.items()}
    return tuple(value) if isinstance(value, list) else value


def differences(config, saved):
    """The fields, without `RESUMABLE`, in which two configs differ: "field: saved -> new" lines."""
    new, old = flatten(config), flatten(saved)
    fields = sorted((new.keys() | old.keys()) - set(RESUMABLE))
    changed = [field for field in fields if new.get(field) != old.get(field)]
    return [f"{field}: {old.get(field)!r} -> {new.get(field)!r}" for field in changed]
