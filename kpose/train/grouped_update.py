"""Updates of many variables with few operations.

Most variables of a network are small: a MoveNet has 340, half of them BatchNorm's. An optimiser that
updates them one by one has about 20 operations for each. A GPU then waits for the host, and tracing
takes longer than for the rest of the step. Here the small variables are updated as one vector. A
large variable is updated alone, because copying it into a vector takes longer than its operations.
"""

import math

import tensorflow as tf

# Variables with fewer elements are updated together.
_SMALL = 2**16


def groups_of(shapes, keys):
    """Divides variables into groups to be updated together.

    Args:
        shapes: list of the static shapes of the variables.
        keys: list of hashable values; only variables with equal keys are updated together.

    Returns:
        list of lists of indices.
    """
    groups = {}
    for index, (shape, key) in enumerate(zip(shapes, keys, strict=True)):
        small = math.prod(shape) < _SMALL
        groups.setdefault((key, None if small else index), []).append(index)
    return list(groups.values())


def update(strategy, groups, rule, written, read=(), added=0):
    """Updates variables on each device of a strategy.

    Args:
        strategy: the `tf.distribute.Strategy`; call this in its cross-replica context.
        groups: list of lists of indices (`groups_of`).
        rule: function (index of the first variable of a group, the values of `written` and of
            `read`, each a vector or a tensor) -> for each list of `written` the new values, or for
            the first `added` lists what is added to the variables. It must compute elementwise.
        written: list of lists of variables; variables of equal index have equal shapes.
        read: list of lists of tensors or variables of the same shapes.
        added: number of lists to which the rule adds. Adding needs no new memory. A large variable
            is then updated faster.
    """

    @tf.autograph.experimental.do_not_convert
    def on_device(_, written, read):
        for group in groups:
            values = [_together(values, group) for values in (*written, *read)]
            results = zip(written, rule(group[0], *values), strict=True)
            for number, (variables, value) in enumerate(results):
                _write(variables, group, value, number < added)

    # Plain tuples, because the strategy cannot rebuild Keras's tracked lists.
    arguments = tuple(map(tuple, written)), tuple(map(tuple, read))
    strategy.extended.update(written[0][0], on_device, args=arguments, group=True)


def _together(values, group):
    if len(group) == 1:
        return tf.convert_to_tensor(values[group[0]])
    return tf.concat([tf.reshape(values[index], [-1]) for index in group], axis=0)


def _write(variables, group, value, add):
    parts = [value]
    if len(group) > 1:
        shapes = [variables[index].shape for index in group]
        parts = tf.split(value, [shape.num_elements() for shape in shapes])
        parts = [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]
    for index, part in zip(group, parts, strict=True):
        (variables[index].assign_add if add else variables[index].assign)(part)
