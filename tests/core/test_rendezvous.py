"""How workers meet before TensorFlow starts, on loopback; TF_CONFIG that is not valid."""

import concurrent.futures
import contextlib
import json
import logging
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.core import cluster as cluster_lib
from kpose.core import rendezvous
from kpose.core.cluster import Cluster
from kpose.core.errors import InputError


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(rendezvous, "_RETRY_AFTER", 0.05)
    monkeypatch.setattr(rendezvous, "_ANSWER_AFTER_ERROR", 1)


def free_addresses(count):
    """Addresses of free ports on loopback."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)


def meet(*clusters, timeout=20.0, log_every=10, delays=()):
    """Lets the workers meet in threads; returns the error of each as text, or None."""

    def run(cluster, delay):
        time.sleep(delay)
        try:
            return rendezvous.wait_for_all(cluster, timeout, log_every)
        except InputError as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(len(clusters)) as pool:
        return list(pool.map(run, clusters, delays or [0] * len(clusters)))


@pytest.mark.parametrize("count", [2, 5])
def test_workers_that_come_in_any_order_meet_and_free_their_ports(count):
    addresses = free_addresses(count)
    clusters = [Cluster(index, addresses) for index in range(count)]
    delays = [0.2 * (count - index) for index in range(count)]
    for _ in range(2):
        assert meet(*clusters, delays=delays) == [None] * count
    for address in addresses:
        socket.create_server(("127.0.0.1", int(address.split(":")[1]))).close()


def test_a_worker_alone_names_who_is_missing_and_ends(caplog):
    addresses = free_addresses(3)
    with caplog.at_level(logging.WARNING, logger="absl"):
        errors = meet(Cluster(0, addresses), Cluster(2, addresses), timeout=1.5, log_every=0.4)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) >= 4 and all(f"waiting for worker 1 ({addresses[1]}): Connection refused" in s for s in lines)
    for error in errors:
        assert "not all workers came within 1.5 s" in error
        assert f"worker 1 ({addresses[1]}): Connection refused" in error and "\n" not in error


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_an_address_that_cannot_be_reached_is_named(host):
    (error,) = meet(Cluster(0, (*free_addresses(1), f"{host}:2222")), timeout=1.5)
    assert f"missing: worker 1 ({host}:2222): " in error


@pytest.mark.parametrize("says", [b"SSH-2.0-OpenSSH_9.6\r\n", b"\x00\x00\x12\x04" * 30_000, b"", None])
def test_another_program_at_an_address_is_not_a_worker(says):
    """It answers something else, too much, closes the connection, or says nothing."""
    mine, other = free_addresses(2)
    with socket.create_server(("127.0.0.1", int(other.split(":")[1]))) as server:
        server.settimeout(0.2)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(meet, Cluster(0, (mine, other)), timeout=1.5)
            kept = []
            while not waiting.done():
                with contextlib.suppress(OSError):
                    kept.append(server.accept()[0])
                    if says is not None:
                        kept[-1].sendall(says)
                        kept.pop().close()
    assert f"missing: worker 1 ({other}): " in waiting.result()[0]


def test_strangers_at_the_port_do_not_disturb():
    addresses = free_addresses(2)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(meet, Cluster(0, addresses), Cluster(1, addresses), delays=(0, 1.5))
        kept = []
        for text in (
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            b"x" * 200_000,
            b"kpose-workers-1 " + b"0" * 64 + b" 1 " + b"0" * 16,
        ):
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                try:
                    kept.append(socket.create_connection(("127.0.0.1", int(addresses[0].split(":")[1]))))
                    break
                except OSError:
                    time.sleep(0.05)
            with contextlib.suppress(OSError):
                kept[-1].sendall(text + b"\n")
        assert waiting.result() == [None, None]


def test_two_processes_with_the_same_index_on_one_machine():
    addresses = free_addresses(2)
    errors = meet(Cluster(1, addresses), Cluster(1, addresses), timeout=1.5, delays=(0, 0.5))
    assert f"this process is worker 1 ({addresses[1]}), but it cannot use the port" in errors[1]
    assert "another process has the same index" in errors[1]


def test_the_same_index_on_two_machines_ends_all(monkeypatch):
    """Index 2 is missing. The second process with index 1 has another port, as on another machine."""
    addresses, (elsewhere,) = free_addresses(3), free_addresses(1)
    listen = rendezvous._Meeting._listen

    def elsewhere_if_second(self):
        if not seconds or self.cluster is not seconds[0]:
            return listen(self)
        return socket.create_server(("127.0.0.1", int(elsewhere.split(":")[1])))

    seconds = [Cluster(1, addresses)]
    monkeypatch.setattr(rendezvous._Meeting, "_listen", elsewhere_if_second)
    errors = meet(Cluster(0, addresses), Cluster(1, addresses), seconds[0], delays=(0, 0, 0.3))
    assert len(errors) == 3
    for error in errors:
        assert f"two processes are worker 1 ({addresses[1]}): give each its own index" in error


def test_an_address_of_this_process_under_another_name():
    port = free_addresses(1)[0].split(":")[1]
    (error,) = meet(Cluster(0, (f"127.0.0.1:{port}", f"localhost:{port}")))
    assert f"the address of worker 1 (localhost:{port}) leads to this process" in error


def test_workers_with_other_lists_are_refused():
    one, two, three = free_addresses(3)
    errors = meet(Cluster(0, (one, two)), Cluster(1, (one, two, three)))
    assert f"worker 1 ({two}) has another list of workers" in errors[0]
    assert f"worker 0 ({one}) has another list of workers" in errors[1]


def test_a_worker_that_is_started_again_while_others_are_missing_is_accepted():
    addresses = free_addresses(3)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(meet, Cluster(0, addresses), Cluster(2, addresses), delays=(0, 3))
        script = f"from kpose.core import rendezvous, cluster; rendezvous.wait_for_all(cluster.Cluster(1, {addresses}))"
        killed = subprocess.Popen([sys.executable, "-c", script])
        time.sleep(1.5)
        killed.kill()
        killed.wait()
        second = meet(Cluster(1, addresses))
        assert [*second, *first.result()] == [None] * 3


def test_a_time_limit_ends_a_process_whose_python_is_blocked():
    script = (
        "from kpose.core import rendezvous; import ctypes\n"
        "with rendezvous.time_limit(30, 'never'): pass\n"
        # Unlike ctypes.CDLL, PyDLL keeps Python's lock.
        "with rendezvous.time_limit(0.5, 'no answer'): ctypes.PyDLL(None).sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode != 0 and done.stderr == "error: no answer\n"


GOOD = ["a:1", "b:1"]
WRONG = [
    ({"worker": "a:1"}, 0, "cluster.worker is 'a:1': give a list"),
    ({"worker": {"0": "a:1", "1": "b:1"}}, 0, "give a list"),
    ({"worker": GOOD, "chief": 3}, 0, "cluster.chief is '3': give a list"),
    ({"worker": GOOD, "chief": ["c:1", "d:1"]}, 0, "cluster.chief has 2 addresses"),
    ({"worker": ["a", "b:1"]}, 0, "address 0 of cluster.worker is 'a': give host:port"),
    ({"worker": ["a:1", ":2222"]}, 0, "address 1 of cluster.worker is ':2222': give host:port"),
    ({"worker": ["a:1", "b:"]}, 0, "give host:port"),
    ({"worker": ["a:1", "grpc://b:1"]}, 0, "give host:port"),
    ({"worker": ["a:1", "::1:2222"]}, 0, "in brackets"),
    ({"worker": ["a:1", " b:1"]}, 0, "give host:port"),
    ({"worker": ["a:1", None]}, 0, "address 1 of cluster.worker is 'None': give host:port"),
    ({"worker": ["a:1", ["b:1"]]}, 0, "give host:port"),
    ({"worker": ["a:1", "b:99999"]}, 0, "b:99999: give a port from 1 to 65535"),
    ({"worker": ["a:0", "b:1"]}, 0, "a:0: give a port from 1 to 65535"),
    ({"worker": ["a:1", "b:1", "A:01"]}, 0, "workers 0 and 2 have the same address A:01"),
    ({"worker": ["a:1", "b:1"], "chief": ["b:1"]}, 0, "workers 0 and 2 have the same address b:1"),
    ({"worker": GOOD}, 2, "the task is worker 2, but the cluster has 0 chief and 2 worker addresses"),
    ({"worker": GOOD}, -1, "task.index is '-1'"),
    ({"worker": GOOD}, 0.5, "task.index is '0.5'"),
    ({"worker": GOOD}, True, "task.index is 'True'"),
    ({"worker": GOOD}, None, "task.index is 'None'"),
    ({"worker": []}, 0, "the cluster has 0 chief and 0 worker"),
    ([], 0, "give a cluster and a task in JSON"),
]


@pytest.mark.parametrize(("jobs", "index", "expected"), WRONG)
def test_a_wrong_tf_config_is_one_line(jobs, index, expected, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": jobs, "task": {"type": "worker", "index": index}}))
    with pytest.raises(InputError) as error:
        cluster_lib.from_environment()
    assert str(error.value).startswith("TF_CONFIG: ") and expected in str(error.value)
    assert "\n" not in str(error.value)


def test_addresses_of_all_forms(monkeypatch):
    addresses = ["host-0.some_net.local.:2222", "10.0.0.1:1", "[::1]:65535", "[fe80::1%eth0]:22"]
    task = {"cluster": {"worker": addresses, "ps": 7}, "task": {"type": "worker", "index": "2"}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    found = cluster_lib.from_environment()
    assert found == Cluster(2, tuple(addresses))
    assert [found.host_and_port(i) for i in (1, 2, 3)] == [("10.0.0.1", 1), ("::1", 65535), ("fe80::1%eth0", 22)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(GOOD),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["worker", "chief", "x"]), inner),
    max_leaves=6,
)


@settings(max_examples=50)
@given(json_values, json_values, st.sampled_from(["worker", "chief"]) | json_values)
def test_any_json_is_a_cluster_or_one_line(jobs, index, kind):
    with pytest.MonkeyPatch.context() as patch:
        text = json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})
        patch.setenv("TF_CONFIG", text.replace("\\u0000", ""))
        try:
            found = cluster_lib.from_environment()
        except InputError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert 0 <= found.index < len(found.addresses)
