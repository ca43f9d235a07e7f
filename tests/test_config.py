"""Recipes: how they are found, checked, saved and compared."""

import os
import subprocess
import sys

import pytest

from kpose import config as config_lib
from kpose.core.errors import InputError
from kpose.train import trainer  # noqa: F401  (imports all modules that register checks)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RECIPES = sorted(
    name[:-3] for name in os.listdir(os.path.join(ROOT, "configs")) if name.endswith(".py") and name != "__init__.py"
)
# Fields that other people's scripts set on every recipe.
CONTRACT = """seed epochs steps batch_size precision xla replicas steps_per_execution data.train data.val model.name
loss.name optimizer.name schedule.name augment.on checkpoint_every""".split()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_sound_and_says_what_it_is(name):
    config = config_lib.load_recipe(name)
    config_lib.check(config)
    assert config.name == name
    assert set(CONTRACT) <= set(config_lib.flatten(config))
    with open(config_lib.recipe_path(name)) as file:
        docstring = file.read().split('"""')[1]
    assert "Paper:" in docstring and "Reaches" in docstring
    assert "python -m kpose.train" in docstring or "make demo" in docstring


def test_the_published_recipe_is_the_published_one():
    flat = config_lib.flatten(config_lib.load_recipe("deeppose"))
    published = {"epochs": 2700, "batch_size": 64, "optimizer.name": "sgd", "optimizer.learning_rate": 0.001}
    # No clipping, warm-up, momentum or weight decay; training ends by the validation loss.
    published |= {"optimizer.clip_norm": 0.0, "optimizer.momentum": 0.0, "optimizer.weight_decay": 0.0}
    published |= {"schedule.name": "constant", "schedule.warmup_steps": 0}
    assert flat["stop_after"] > 0
    published |= {"loss.name": "l2", "model.dropout": 0.6, "model.input_size": (224, 224), "data.padding": 1.0}
    assert published.items() <= flat.items()


def test_recipes_are_found_by_path_by_file_name_and_by_name():
    path = os.path.join(ROOT, "configs", "deeppose.py")
    for name in (path, "configs/deeppose.py", "deeppose.py", "deeppose"):
        assert os.path.samefile(config_lib.recipe_path(name), path)
    with pytest.raises(InputError, match="deepose.*deeppose"):
        config_lib.recipe_path("deepose")


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("batch_size", 0, "batch_size is 0"),
        ("precision", "float8", "precision is 'float8'.*mixed_bfloat16"),
        ("xla", "perhaps", "xla is 'perhaps'"),
        ("augment.flip", 1.5, "between 0.0 and 1.0"),
        ("augment.flip", float("nan"), "between"),
        ("loss.name", "l17", "loss.name is 'l17'"),
        ("optimizer.name", "adam", "optimizer.name is 'adam'"),
        ("schedule.name", "cosin", "schedule.name is 'cosin'"),
        ("skeleton", "octopus", "octopus"),
        ("replicas", 3, "64 cannot be divided among 3"),
        ("model.input_size", (224,), "2 positive integers"),
    ],
)
def test_bad_values_are_named(field, value, message):
    config = config_lib.default()
    section, _, key = field.rpartition(".")
    (config[section] if section else config)[key] = value
    with pytest.raises(InputError, match=message):
        config_lib.check(config)


def test_unknown_missing_and_mistyped_fields_are_named():
    config = config_lib.default()
    config.optimizer.learning_rat = 1.0
    with pytest.raises(InputError, match="'optimizer.learning_rat': did you mean 'optimizer.learning_rate'"):
        config_lib.check(config)
    config = config_lib.default()
    del config.optimizer["momentum"]
    with pytest.raises(InputError, match="no value for 'optimizer.momentum'"):
        config_lib.check(config)
    config = config_lib.default()
    with config.ignore_type():
        config.epochs = "many"
    with pytest.raises(InputError, match="epochs is 'many'"):
        config_lib.check(config)


def test_a_saved_config_comes_back_the_same(tmp_path):
    config = config_lib.load_recipe("demo")
    path = str(tmp_path / "config.json")
    config_lib.save(config, path)
    assert config_lib.flatten(config_lib.load(path)) == config_lib.flatten(config)
    assert config_lib.differences(config, config_lib.load(path)) == []


def test_only_what_changes_the_meaning_of_a_checkpoint_is_a_difference():
    config, other = config_lib.default(), config_lib.default()
    other.epochs, other.xla, other.data.val = 7, "on", "elsewhere"
    assert config_lib.differences(other, config) == []
    other.optimizer.learning_rate = 0.5
    assert config_lib.differences(other, config) == ["optimizer.learning_rate: 0.001 -> 0.5"]


def test_a_recipe_that_cannot_be_read_is_one_clear_error(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("def get_config():\n    return 1 / 0\n")
    with pytest.raises(InputError, match="broken.py.*ZeroDivisionError"):
        config_lib.load_recipe(str(path))


@pytest.mark.parametrize("content, message", [("", "empty"), ("{", "not JSON"), ("[1]", "not the config")])
def test_a_damaged_config_file_is_named(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"config.json.*{message}"):
        config_lib.load(str(path))
    with pytest.raises(InputError, match="no such"):
        config_lib.load(str(tmp_path / "none.json"))


def test_recipes_that_train_with_adamw_keep_the_initial_weights_of_0_1():
    for name in config_lib.shipped():
        config = config_lib.load_recipe(name)
        assert config.model.fc_init == ("small" if config.optimizer.name == "adamw" else "lecun"), name
        assert (config.stop_after > 0) == (config.optimizer.name == "sgd" or name == "finetune"), name


@pytest.mark.parametrize("name", ["one_gpu", "eight_gpus", "several_hosts"])
def test_hardware_recipes_are_a_few_fields_over_another(name):
    config = config_lib.load_recipe(f"configs/hardware/{name}.py")
    config_lib.check(config)
    assert config.name == name
    assert len(config_lib.differences(config, config_lib.load_recipe("deeppose_rle"))) <= 6
    assert config_lib.flatten(config) == config_lib.flatten(config_lib.load_recipe(f"hardware/{name}"))


def test_quick_changes_a_recipe_before_the_command_line_does():
    argv = config_lib.resolve_flags(["train", "--config=deeppose:quick", "--config.steps=7", "--workdir=w"])
    assert argv[1].endswith("deeppose.py") and argv[-2:] == ["--config.steps=7", "--workdir=w"]
    assert argv.index("--config.steps=20") < argv.index("--config.steps=7")
    assert all(name in config_lib.flatten(config_lib.default()) for name in config_lib.QUICK)
    late = config_lib.resolve_flags(["train", "--workdir=w", "--config.steps=7", "--config=deeppose:quick"])
    assert late == [*argv[:-2], "--workdir=w", "--config.steps=7"], "the order of the flags does not matter"
    with pytest.raises(InputError, match="no variant 'slow'; the only variant is 'quick'"):
        config_lib.resolve_flags(["train", "--config=deeppose:slow"])


@pytest.mark.parametrize("replicas, batch_size, expected", [(1, 8, 8), (2, 7, 8), (2, 8, 8)])
def test_a_quick_batch_suits_any_number_of_replicas(replicas, batch_size, expected):
    """A quick recipe of 32 replicas runs with a batch of 32; a batch of 8 is no error."""
    from kpose.core import devices

    config = config_lib.default()
    config.replicas, config.batch_size, config.quick = replicas, batch_size, True
    config_lib.check(config)
    assert devices.start(config).batch_size(config) == expected
    assert config.batch_size == batch_size, "the caller's recipe stays as it is"


@pytest.mark.slow
def test_a_quick_recipe_runs(tiny_data, tmp_path):
    """With a smaller network and input, because the published layers take a minute at 64 pixels."""
    command = [sys.executable, "-m", "kpose.train", "--config=hardware/eight_gpus:quick", f"--workdir={tmp_path}"]
    command += [f"--config.data.train={tiny_data['train']}", f"--config.data.val={tiny_data['val']}"]
    command += ["--config.replicas=2", "--config.batch_size=7", "--config.model.hidden=(64,)", "--config.steps=4"]
    command += ["--config.data.padding=1.0", "--config.model.input_size=(64,64)"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "batch 8 (4 per replica), " in done.stderr and "4 steps in all" in done.stderr
    assert (tmp_path / "checkpoints" / "step-4.index").exists()
