"""The workers of a training on several hosts, as TF_CONFIG lists them."""

import dataclasses
import json
import os
import re

from kpose.core.errors import InputError

# A name, an IPv4 address, or an IPv6 address in brackets; then the port.
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%\w+)?\]|\w[\w-]{0,62}(?:\.[\w-]{1,63})*\.?):(\d{1,5})", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of one training, and which of them this process is.

    Attributes:
        index: number of this worker, from 0. A chief is worker 0.
        addresses: "host:port" of each worker.
    """

    index: int
    addresses: tuple

    def host_and_port(self, index):
        """(host without brackets, port) of worker `index`."""
        host, _, port = self.addresses[index].rpartition(":")
        return host.strip("[]"), int(port)

    def name(self, index):
        """The worker with its address, for messages."""
        return f"worker {index} ({self.addresses[index]})"


def from_environment():
    """The `Cluster` of TF_CONFIG; None if it is not set.

    Raises:
        InputError: TF_CONFIG is not valid.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        setting = json.loads(text)
        jobs, task = setting["cluster"], setting["task"]
        kind, index = task["type"], task["index"]
        # Some launchers name the first worker "chief". Other jobs do not train.
        chiefs, workers = (jobs.get(name, []) for name in ("chief", "worker"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"TF_CONFIG: give a cluster and a task in JSON ({error!r}): {text[:200]}") from None
    for name, addresses in (("chief", chiefs), ("worker", workers)):
        _check_list(name, addresses)
    if len(chiefs) > 1:
        raise InputError(f"TF_CONFIG: cluster.chief has {len(chiefs)} addresses: give one, and the others as workers")
    addresses = (*chiefs, *workers)
    _check_different(addresses)
    first = len(chiefs) if kind == "worker" else 0
    count = {"chief": len(chiefs), "worker": len(workers)}.get(kind, 0) if isinstance(kind, str) else 0
    index = _index(index)
    if index >= count:
        raise InputError(
            f"TF_CONFIG: the task is {str(kind)[:20]} {index}, but the cluster has {len(chiefs)} chief and "
            f"{len(workers)} worker addresses, numbered from 0: give a task of the cluster"
        )
    return Cluster(first + index, addresses)


def _index(value):
    """The index of the task; some launchers write it as text."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,6}", value):
        value = int(value)
    if type(value) is not int or value < 0:
        raise InputError(f"TF_CONFIG: task.index is {str(value)[:20]!r}: give a whole number, from 0")
    return value


def _check_list(name, addresses):
    """Raises `InputError` if `addresses` is not a list of "host:port"."""
    if not isinstance(addresses, list):
        raise InputError(
            f'TF_CONFIG: cluster.{name} is {str(addresses)[:60]!r}: give a list of addresses, as ["host0:2222"]'
        )
    for index, address in enumerate(addresses):
        found = isinstance(address, str) and _ADDRESS.fullmatch(address)
        if not found:
            raise InputError(
                f"TF_CONFIG: address {index} of cluster.{name} is {str(address)[:60]!r}: give host:port, as host0:2222 "
                "(an IPv6 address in brackets)"
            )
        if not 1 <= int(found[2]) <= 65535:
            raise InputError(f"TF_CONFIG: address {index} of cluster.{name} is {address}: give a port from 1 to 65535")


def _check_different(addresses):
    """Raises `InputError` if two workers have the same address."""
    seen = {}
    for index, address in enumerate(addresses):
        host, _, port = address.lower().rpartition(":")
        first = seen.setdefault((host.rstrip("."), int(port)), index)
        if first != index:
            raise InputError(
                f"TF_CONFIG: workers {first} and {index} have the same address {address}: give each its own"
            )
