"""Recipes: what a training run is made of.

`default()` lists every field there is, with its default. A recipe in `configs/` is a Python file whose
`get_config()` starts from it and changes fields; the command line changes them further
(`--config.optimizer.learning_rate=0.01`). A recipe is checked when it is read, before anything slow starts.
"""

import importlib.util
import os

from ml_collections import ConfigDict

from kpose import files, geometry, skeletons
from kpose.errors import InputError


def default():
    """Every field of a recipe, with its default: the published network and data, trained for one epoch."""
    config = ConfigDict()
    config.name = "default"  # The recipe's name, for logs and error messages.
    config.seed = 0  # Initial weights, dropout, order and augmentation of the samples.
    config.epochs = 1  # Passes over the training records.
    config.steps = 0  # Batches instead of epochs (0: by epochs).
    config.batch_size = 64  # The global batch, shared out among the replicas.
    config.precision = "auto"  # auto, float32, mixed_bfloat16, mixed_float16.
    config.xla = "auto"  # auto (on accelerators), on, off.
    config.replicas = 0  # 0: all accelerators; on CPU, this many logical devices.
    config.steps_per_execution = 1  # Steps between two returns to Python.
    config.checkpoint_every = 1000  # Steps between checkpoints; one is written at the end of training in any case.
    config.keep_checkpoints = 3  # The newest ones that are kept.
    config.evaluate_every = 1  # Epochs between evaluations on data.val; the last epoch is evaluated in any case.
    config.on_nan = "stop"  # At a gradient that is not finite: stop, skip, rollback (to the last checkpoint).
    config.evaluate_batches = 0  # Of data.val (0: all).
    config.log_every = 100  # Steps between log lines and TensorBoard scalars.
    config.quick = False  # Of RECIPE:quick: the batch is rounded up to what the replicas can share.
    config.skeleton = "coco"  # The skeleton table of the labels.

    config.data = ConfigDict()
    config.data.train = ""  # Glob of training records; several, separated by commas, are mixed.
    config.data.weights = ()  # Of a mixture: each one's share of the samples (none: as many as it has records).
    config.data.cache = False  # Keep all decoded crops in memory.
    config.data.val = ""  # Glob of validation records; none: no evaluation during training.
    config.data.errors = ""  # Of cascade: records to measure the stage before on (none: data.train).
    config.data.padding = 1.0  # The network sees the box enlarged by this factor.
    config.data.aspect = 0.0  # It sees the rectangle of this width over height round the box (0: the box, stretched).
    config.data.shuffle_buffer = 10_000  # Encoded records in memory from which the next one is drawn.

    config.augment = ConfigDict()
    config.augment.on = "host"  # host (in tf.data) or device (in the compiled step).
    config.augment.flip = 0.0  # Probability of a mirror image, left and right joints swapped.
    config.augment.rotation = 0.0  # Largest angle in degrees, either way.
    config.augment.scale = (1.0, 1.0)  # (lowest, highest) factor of the size of what is seen.
    config.augment.shift = 0.0  # Largest shift of what is seen, as a fraction of its sides.
    config.augment.half_body = 0.0  # Probability of seeing the upper or the lower body alone.
    config.augment.cutout = 0.0  # Probability of a rectangle of the mean colour; joints in it count as occluded.
    config.augment.grey = 0.0  # Probability of a shift towards grey, by an amount between none and all.
    config.augment.jitter = 0.0  # Brightness, contrast, saturation: times 1 +- this; hue: +- a tenth of a turn of this.
    config.augment.solarise = 0.0  # Probability that bright levels are inverted.
    config.augment.posterise = 0.0  # Probability that 2 to 6 bits are left of each channel.
    config.augment.sharpness = 0.0  # Probability of blur or sharpening.
    config.augment.equalise = 0.0  # Probability that the histogram is equalised.

    config.model = ConfigDict()
    config.model.name = "deeppose"  # deeppose, integral, backbone, movenet, cascade.
    config.model.input_size = (224, 224)  # (height, width) in pixels.
    config.model.filters = (96, 256, 384, 384, 256)  # Of the five convolutions; of the levels of integral.
    config.model.kernels = (11, 5, 3, 3, 3)
    config.model.first_stride = 4
    config.model.hidden = (4096, 4096)  # Of deeppose and cascade: units of the hidden fully connected layers.
    config.model.dropout = 0.6  # After each hidden fully connected layer.
    config.model.head_filters = 64  # Of integral and the spatial head: channels of the top-down path.
    config.model.head_level = 1  # Of the same: the maps' resolution, 1 being a quarter of the input's.
    config.model.base = ""  # Of cascade: the workdir of the stage before.
    config.model.sub_image = 32  # Of cascade: side of the sub-images in pixels.
    config.model.sigma = 1.0  # Of cascade: their side in torso diameters.
    config.model.batch_norm_momentum = 0.9
    config.model.width = 1.0  # Of movenet: factor of its channels.
    config.model.frozen_blocks = 0  # Of movenet: its first blocks that stay as they are.
    config.model.backbone = "resnet18"  # resnet18, resnet50, efficientnet_lite0.
    config.model.head = "pooled"  # Of backbone: pooled (averages, fully connected), spatial (maps).
    config.model.weights = (
        ""  # What it begins with: a run's folder; a .pth, .h5 or .keras file, package:NAME, a keras_cv preset; .json.
    )
    config.model.freeze_epochs = 0  # First epochs in which the backbone stays as it is.

    config.teacher = ConfigDict()
    config.teacher.weights = ""  # Of MoveNet's graph model (a .json file): also learn what it finds in the crops.
    config.teacher.width = 1.75  # Factor of its channels: 1 for Lightning, 1.75 for Thunder.
    config.teacher.input_size = (256, 256)  # It sees the crops, resized to this, in multiples of 32.
    config.teacher.min_score = 0.3  # What it is less sure of is not learnt.
    config.teacher.everywhere = False  # Also at labelled joints, not at the others alone.
    config.teacher.share = 1.0  # Factor of its part of the loss.

    config.loss = ConfigDict()
    # l2 (published: the sum over the batch), masked_l2 (published, with visibility), l1, smooth_l1, laplace, rle.
    config.loss.name = "l2"
    config.loss.beta = 0.02  # Of smooth_l1: where the square ends, as a fraction of the crop.
    config.loss.flow_layers = 6  # Of rle: coupling layers of the flow.
    config.loss.flow_units = 64  # Of rle: units of its networks' hidden layers.

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"  # sgd, adamw.
    config.optimizer.learning_rate = 0.001
    config.optimizer.momentum = 0.0  # Of sgd.
    config.optimizer.weight_decay = 0.0  # Decoupled from the gradient; not of biases and norms.
    config.optimizer.clip_norm = 0.0  # Longest gradient, in the global norm (0: any).
    config.optimizer.ema = 0.0  # Evaluate and export a moving average of the weights with this memory (0: none).

    config.schedule = ConfigDict()
    config.schedule.name = "constant"  # constant, step, cosine (to zero), flat_cosine (constant, then to zero).
    config.schedule.warmup_steps = 0  # Linear from zero.
    config.schedule.milestones = (0.7, 0.9)  # Of step: fractions of the training.
    config.schedule.factor = 0.1  # Of step: what the rate is multiplied by at each.
    config.schedule.flat = 0.5  # Of flat_cosine: the fraction of the training before the cosine.
    return config


# Field -> its allowed values.
CHOICES = {
    "precision": ("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    "xla": ("auto", "on", "off"),
    "augment.on": ("host", "device"),
    "on_nan": ("stop", "skip", "rollback"),
}
# Field -> (lowest, highest) allowed value, both included.
RANGES = {
    "seed": (0, 2**31 - 1),
    "epochs": (1, None),
    "steps": (0, None),
    "batch_size": (1, None),
    "replicas": (0, None),
    "steps_per_execution": (1, None),
    "checkpoint_every": (1, None),
    "keep_checkpoints": (1, None),
    "evaluate_every": (1, None),
    "evaluate_batches": (0, None),
    "log_every": (1, None),
    "data.padding": (1.0, 10.0),
    "data.aspect": (0.0, 10.0),
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
# Fields that a run may change when it goes on: they do not change what its checkpoints mean.
RESUMABLE = (
    "epochs",
    "steps",
    "xla",
    "replicas",
    "steps_per_execution",
    "checkpoint_every",
    "keep_checkpoints",
    "evaluate_every",
    "evaluate_batches",
    "log_every",
    "on_nan",
    "data.train",
    "data.val",
    "data.weights",
    "data.cache",
    "data.shuffle_buffer",
    "augment.on",
)


def check(config):
    """Raises `InputError` unless every field of `config` is known, of the right type and in its range."""
    # They need Keras; reading a recipe's fields does not.
    from kpose import augment, distillation, losses, models, optimizers

    choices = CHOICES | {
        "loss.name": tuple(losses.LOSSES),
        "optimizer.name": optimizers.OPTIMIZERS,
        "schedule.name": optimizers.SCHEDULES,
    }
    fields, known = flatten(config), flatten(default())
    _check_fields(fields, known)
    for field, allowed in choices.items():
        if fields[field] not in allowed:
            raise InputError(f"config.{field} is {fields[field]!r}: it is one of {', '.join(allowed)}")
    for field, (lowest, highest) in RANGES.items():
        value = fields[field]
        if value != value or value < lowest or (highest is not None and value > highest):
            wanted = f"at least {lowest}" if highest is None else f"between {lowest} and {highest}"
            raise InputError(f"config.{field} is {value}: it is {wanted}")
    skeletons.get(config.skeleton)
    models.check(config.model)
    optimizers.check(config.schedule)
    augment.check(config.augment)
    distillation.check(config)
    geometry.check_aspect(config.data.aspect, config.model.input_size)
    if config.replicas and config.batch_size % config.replicas and not config.quick:
        raise InputError(f"config.batch_size {config.batch_size} cannot be shared out among {config.replicas} replicas")


def _check_fields(fields, known):
    for field in fields:
        if field not in known:
            raise InputError(f"config has no field {field!r}{_suggestion(field, known)}")
    for field, value in known.items():
        if field not in fields:
            raise InputError(f"config lacks the field {field!r}: start from kpose.config.default()")
        if type(fields[field]) is not type(value):
            raise InputError(
                f"config.{field} is {fields[field]!r}: it is of type {type(value).__name__}, as in {value!r}"
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


# What FILE:quick changes: enough steps to see that a recipe is sound.
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
    """The file of a recipe: a path, or the name of one that kpose ships ("deeppose", "configs/deeppose.py",
    "hardware/one_gpu").

    Raises:
        InputError: there is no such file or recipe.
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
    """Command-line arguments with the recipe of --config replaced by its file, and each --config.FIELD looked up.

    `--config=RECIPE:quick` becomes the recipe and the changes of `QUICK`, before those of the command line.

    Raises:
        InputError: no such recipe, one that cannot be read, or no such field.
    """
    resolved, known = [argv[0]], flatten(default())
    arguments = iter(argv[1:])
    for argument in arguments:
        name, _, value = argument.lstrip("-").partition("=")
        if name == "config" and argument.startswith("-"):
            value = value or next(arguments, "")
            recipe, _, variant = value.partition(":")
            if variant not in ("", "quick"):
                raise InputError(f"--config={value}: a recipe has no variant {variant!r}, but 'quick'")
            path = recipe_path(recipe)
            load_recipe(path)
            resolved.append(f"--config={path}")
            if variant:
                resolved += [f"--config.{field}={value}" for field, value in QUICK.items()]
            continue
        if name.startswith("config.") and name[len("config.") :] not in known:
            raise InputError(f"config has no field {name[7:]!r}{_suggestion(name[7:], known)}")
        resolved.append(argument)
    return resolved


def _shipped_recipes():
    # Installed, configs/ is the package kpose.configs; in a checkout it lies beside kpose/.
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
    """The config of a JSON file that `save` wrote; fields that came to kpose later have their defaults.

    Raises:
        InputError: the file is missing or no such config.
    """
    saved = files.read_json(path, "config of a training run")
    if not isinstance(saved, dict):
        raise InputError(f"{path}: not the config of a training run")
    config = from_fields(saved)
    check(config)
    return config


def from_fields(saved):
    """The config of a dict of its fields, as JSON holds them; those that are not there have their defaults."""
    config = default()
    for name, value in _with_tuples(saved).items():
        if isinstance(value, dict) and isinstance(config.get(name), ConfigDict):
            config[name] = ConfigDict(config[name].to_dict() | value)
        else:
            config[name] = value
    return config


def _with_tuples(value):
    # JSON has lists alone; recipes have tuples.
    if isinstance(value, dict):
        return {key: _with_tuples(inner) for key, inner in value.items()}
    return tuple(value) if isinstance(value, list) else value


def differences(config, saved):
    """The fields, other than `RESUMABLE`, in which two configs differ: "field: saved -> wanted" lines."""
    new, old = flatten(config), flatten(saved)
    fields = sorted((new.keys() | old.keys()) - set(RESUMABLE))
    changed = [field for field in fields if new.get(field) != old.get(field)]
    return [f"{field}: {old.get(field)!r} -> {new.get(field)!r}" for field in changed]
