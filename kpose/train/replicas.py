"""Values of several replicas: sums, means of statistics, and seeds that differ by replica."""

import tensorflow as tf


def seeded(value, replica_id):
    """A dropout seed plus the offset of the replica; other state unchanged."""
    return value + _seed_offset(value, replica_id) if value.dtype.is_integer else value


def unseeded(value, replica_id):
    """The inverse of `seeded`."""
    return value - _seed_offset(value, replica_id) if value.dtype.is_integer else value


def _seed_offset(value, replica_id):
    return tf.cast(tf.stack([tf.cast(replica_id, tf.int32), 0]), value.dtype)


def total(strategy, value):
    """The sum over all replicas. For one replica it avoids the copy that `reduce` makes."""
    if strategy.num_replicas_in_sync == 1:
        return strategy.experimental_local_results(value)[0]
    return strategy.reduce("SUM", value, axis=None)


def reduce_state(strategy, value):
    """The mean of BatchNorm statistics over the replicas; seeds are equal on all, and unchanged."""
    local = strategy.experimental_local_results(value)[0]
    return local if local.dtype.is_integer else total(strategy, value) / strategy.num_replicas_in_sync
