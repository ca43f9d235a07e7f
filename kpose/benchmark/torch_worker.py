"""Worker that times training steps of PyTorch on a CPU or a GPU (`workers.serve`).

It imports neither TensorFlow nor absl: PyTorch and TensorFlow crash in one process.

Request: {"network", "batch_size", "precision", "compiled", "steps" or "time"}; answer: see `handle`.
"""

import functools
import time

from kpose.benchmark import workers


def handle(request):
    """Times training steps.

    Args:
        request: dict of "network", the name of a function of `torch_networks`; "size", the side
            of the images; "joints"; "batch_size"; "precision", a dtype policy of Keras; "compiled",
            whether torch.compile is used; "steps", the number of steps, or "time", the wanted
            seconds of all steps.

    Returns:
        dict of "seconds" of a step, "first_call_seconds", "peak_memory_gib" (None on a CPU),
        "torch", its version, "device".
    """
    import torch

    step, first = _prepared(*(request[n] for n in ("network", "size", "joints", "batch_size", "precision", "compiled")))
    wait = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)

    def timed(steps):
        started = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        return (time.perf_counter() - started) / steps

    steps = request.get("steps") or max(2, min(500, int(request["time"] / timed(2))))
    on_gpu = torch.cuda.is_available()
    return {
        "seconds": timed(steps),
        "steps": steps,
        "first_call_seconds": first,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
    }


# One network at a time on the card; two, for the eager and the compiled way of `train`.
@functools.lru_cache(maxsize=2)
def _prepared(network, size, joints, batch_size, precision, compiled):
    import torch

    from kpose.benchmark import torch_networks

    if torch.cuda.is_available():
        _prepared.cache_clear()
        torch._dynamo.reset()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    step = torch_networks.make_step(getattr(torch_networks, network), size, joints, batch_size, precision, compiled)
    started = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    first = time.perf_counter() - started
    for _ in range(3 if torch.cuda.is_available() else 0):
        step()
    return step, first


if __name__ == "__main__":
    workers.serve(handle)
