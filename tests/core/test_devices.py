"""Devices, precision and the line that describes them."""

import types

import keras
import pytest

from kpose.core import devices
from kpose.core.errors import InputError
from tests import tiny


@pytest.mark.parametrize(
    "flags, precision",
    [({"avx2", "avx512_bf16"}, "mixed_bfloat16"), ({"amx_bf16"}, "mixed_bfloat16"), ({"avx2", "avx512f"}, "float32")],
)
def test_auto_precision_is_bfloat16_only_where_the_cpu_computes_in_it(monkeypatch, flags, precision):
    monkeypatch.setattr(devices, "_cpu_flags", lambda: flags)
    assert devices.choose_precision("auto") == precision
    assert devices.choose_precision("float32") == "float32"


def test_slow_bfloat16_is_granted_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(devices, "_cpu_flags", lambda: {"avx2"})
    assert devices.choose_precision("mixed_bfloat16") == "mixed_bfloat16"
    monkeypatch.setattr(devices, "_cpu_flags", lambda: {"avx512_bf16"})
    assert devices.choose_precision("mixed_bfloat16") == "mixed_bfloat16"


def test_the_summary_says_what_really_runs():
    run = devices.start(tiny.make_recipe("", replicas=2, xla="on"))
    assert run.describe() == "2 replicas on CPU:0, CPU:1, float32, compiled with XLA, BatchNorm on each replica alone"
    run = devices.start(tiny.make_recipe("", replicas=2))
    assert run.describe() == "2 replicas on CPU:0, CPU:1, float32, not compiled, BatchNorm synchronised"
    assert devices.start(tiny.make_recipe("")).describe() == "1 replica on CPU:0, float32, not compiled"


@pytest.mark.parametrize("kind, chosen", [("GPU", 16), ("CPU", 1)])
def test_accelerators_run_several_steps_in_a_call_unless_the_recipe_gives_a_number(kind, chosen):
    extended = types.SimpleNamespace(worker_devices=(f"/replica:0/task:0/device:{kind}:0",))
    run = devices.Runtime(types.SimpleNamespace(extended=extended), "float32", False, False)
    assert run.steps_per_execution(tiny.make_recipe("", steps_per_execution=0)) == chosen
    assert run.steps_per_execution(tiny.make_recipe("", steps_per_execution=5)) == 5


def test_replicas_that_cannot_be_had_are_refused():
    with pytest.raises(InputError, match="config.replicas is 8"):
        devices.make_strategy(8)


def test_the_policy_is_put_back():
    before = keras.config.dtype_policy().name
    with pytest.raises(RuntimeError), devices.dtype_policy("mixed_bfloat16"):
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        raise RuntimeError
    assert keras.config.dtype_policy().name == before
