"""Checks of a recipe that are registered by the modules whose fields they check.

`kpose.config` checks that every field is known, of the right type and in its range. What a field
means is known by the module that reads it, which registers a further check here when it is imported:

    @checks.register
    def check_recipe(config):
        checks.choice(config.loss.name, "loss.name", LOSSES)
"""

from kpose.core.errors import InputError

_registered = []


def register(check):
    """Adds `check(config)`, which raises `InputError`, to the checks of every recipe; returns it."""
    _registered.append(check)
    return check


def run(config):
    """Runs all registered checks on a recipe, in the order of their names (`InputError` from the first that fails)."""
    for check in sorted(_registered, key=lambda check: (check.__module__, check.__qualname__)):
        check(config)


def choice(value, field, allowed):
    """Raises `InputError` unless the value of `config.<field>` is one of `allowed`."""
    if value not in allowed:
        raise InputError(f"config.{field} is {value!r}: it is one of {', '.join(allowed)}")


def check_numbers(config, field, length=None):
    """Raises `InputError` unless a field of the `model` section holds positive whole numbers.

    Args:
        config: the recipe's `model` section.
        field: the field's name.
        length: how many numbers it must hold; None: any number of them.
    """
    value = tuple(config[field])
    if (length and len(value) != length) or not all(isinstance(v, int) and v > 0 for v in value):
        wanted = f"{length} positive whole numbers" if length else "positive whole numbers"
        raise InputError(f"config.model.{field} is {value}: it is {wanted}")
