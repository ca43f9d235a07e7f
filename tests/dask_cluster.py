"""A Dask cluster of two worker processes on this computer, for tests: python -m tests.dask_cluster.

Prints the scheduler's address, and ends when its standard input is closed, so also with the test.
"""

import contextlib
import subprocess
import sys


def main(preload):
    import distributed

    # Port 0: any free port. Nothing listens for a browser.
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, preload=preload
    )
    with cluster, distributed.Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()


@contextlib.contextmanager
def running(*preload, env):
    """Yields the address of a cluster in another process.

    Args:
        preload: modules that each worker imports when it starts.
        env: dict of environment variables.
    """
    command = [sys.executable, "-m", "tests.dask_cluster", *preload]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            address = process.stdout.readline().strip()
            assert address.startswith("tcp://"), "the cluster did not start: its error is above"
            yield address
        finally:
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


if __name__ == "__main__":
    main(sys.argv[1:])
