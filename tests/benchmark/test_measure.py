"""The benchmarks on small data: the last line is one JSON object with rates."""

import json

import pytest

from tests.core.test_cli import run


@pytest.mark.parametrize("name", ["write", *(pytest.param(n, marks=pytest.mark.slow) for n in ("input", "serve"))])
def test_a_benchmark_ends_with_one_json_object(name, monkeypatch, capfd):
    from kpose.benchmark import data, serving
    from tests import tiny

    monkeypatch.setattr(serving.config_lib, "load_recipe", lambda name: tiny.make_recipe("unused"))
    monkeypatch.setattr(serving, "BATCH_SIZE", 2)
    monkeypatch.setattr(serving, "REQUESTS", 2)
    monkeypatch.setattr(data, "NUM_IMAGES", 40)
    monkeypatch.setattr(data, "BATCHES", 1)
    monkeypatch.setattr(data, "WARM_UP", 0)
    status, out, _ = run(monkeypatch, capfd, "kpose.benchmark", name, "--runs=1")
    measured = json.loads(out.strip().splitlines()[-1])
    assert status == 0 and measured["benchmark"] == name and measured["cpu"]
    rates = {key: value for key, value in measured.items() if "second" in key or key.startswith("ratio")}
    # null if the package of the baseline is not installed.
    assert len(rates) >= 2 and all(value is None or value > 0 for value in rates.values())
    if name == "serve":
        for network in serving.NETWORKS:
            assert measured[f"{network}_whole_p95_ms"] >= measured[f"{network}_whole_p50_ms"] > 0
            assert measured[f"{network}_alone_persons_per_second_at_2"] > 0
            assert (measured[f"{network}_latency_ratio_to_onnx"] is None) == (f"{network}_onnx_p50_ms" not in measured)
