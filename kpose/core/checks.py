"""Checks of a recipe, registered by the modules that read its fields.

`kpose.config` checks that every field is known, has the right type and is in its range. The module
that reads a field checks its meaning. It registers this check when it is imported:

    @checks.register
    def check_recipe(config):
        checks.choice(config.loss.name, "loss.name", LOSSES)
"""

from kpose.core.errors import InputError

# The numbers that describe a layer are smaller.
LARGEST = 2**20
# Module state, because each module adds its checks when it is imported.
_registered = []


def register(check):
    """Registers a check of every recipe, and returns it; for use as a decorator.

    Args:
        check: function (config) that raises `InputError` for a bad recipe.
    """
    _registered.append(check)
    return check


def run(config):
    """Runs all registered checks on a recipe, in the order of their names.

    Raises:
        InputError: from the first check that fails.
    """
    for check in sorted(_registered, key=lambda check: (check.__module__, check.__qualname__)):
        check(config)


def choice(value, field, allowed):
    """Raises `InputError` unless the value of `config.<field>` is one of `allowed`."""
    if value not in allowed:
        raise InputError(f"config.{field} is {value!r}: use one of {', '.join(allowed)}")


def check_numbers(config, field, length=None):
    """Raises `InputError` unless a field of the `model` section holds positive integers.

    Args:
        config: the recipe's `model` section.
        field: the field's name.
        length: required number of values; None: any.
    """
    value = tuple(config[field])
    # No layer is larger, and TensorFlow turns integers beyond 64 bits into floats.
    if (length and len(value) != length) or not all(isinstance(v, int) and 0 < v < LARGEST for v in value):
        wanted = f"{length} positive integers" if length else "positive integers"
        raise InputError(f"config.model.{field} is {value}: give {wanted} below {LARGEST}")
