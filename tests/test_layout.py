"""The import rule: a file imports from its own package or from a lower floor."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Floors from the lowest to the highest. Packages of one floor do not import each other.
FLOORS = (
    ("kpose.core",),
    ("kpose.config", "kpose.augment", "kpose.models", "kpose.drawing", "kpose.metrics"),
    ("kpose.data", "kpose.runs", "kpose.configs"),
    ("kpose.train", "kpose.evaluate", "kpose.export", "kpose.compare", "tfrecords_tools"),
    ("kpose.predict", "kpose.benchmark"),
    ("kpose.demo",),
)
FLOOR = {package: number for number, floor in enumerate(FLOORS) for package in floor}
# The version, and the load function for users: it imports kpose.predict when it is called.
ROOT_PACKAGE = "kpose"


def _files():
    for folder in ("kpose", "tfrecords_tools", "configs"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def _module(path):
    """The name of a file's module; configs/ is installed as kpose.configs."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return f"kpose.{name}" if name.split(".")[0] == "configs" else name


def _package(module):
    """The package on a floor that a module belongs to; None for `kpose` itself and for other libraries."""
    return next((name for name in FLOOR if module == name or module.startswith(f"{name}.")), None)


def _imports(path):
    """(line, module) of every use of a module of kpose or tfrecords_tools, also inside functions.

    These are import statements, names such as `kpose.train.trainer` after `import kpose`, and
    `importlib.import_module` or `__import__` with a text.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from kpose import config` names a module, `from kpose.config import default` a function of one.
            names = [f"{_source(node, path)}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] in ("kpose", "tfrecords_tools"))


def _source(node, path):
    """The module from which an `ast.ImportFrom` imports; a relative import is resolved."""
    if not node.level:
        return node.module
    package = _module(path).split(".")
    base = package[: len(package) - node.level + (path.name == "__init__.py")]
    return ".".join([*base, *([node.module] if node.module else [])])


def _violations(path):
    own = _package(_module(path))
    if own is None:
        return
    for line, module in _imports(path):
        other = _package(module)
        if other is not None and other != own and FLOOR[other] >= FLOOR[own]:
            yield f"{path.relative_to(ROOT)}:{line} imports {module}, which is not on a lower floor"


def test_every_file_imports_from_its_own_package_or_a_lower_floor():
    violations = [violation for path in _files() for violation in _violations(path)]
    assert not violations, "\n".join(violations)


def test_every_file_but_the_root_package_is_on_a_floor():
    outside = [path for path in _files() if _package(_module(path)) is None]
    assert outside == [ROOT / ROOT_PACKAGE / "__init__.py"]


@pytest.mark.parametrize(
    "statement",
    [
        "from kpose.train import trainer",
        "import kpose.train.trainer",
        "from kpose import train",
        "from ..train import trainer",
        "kpose.train.trainer.train()",
        "importlib.import_module('kpose.train.trainer')",
        "__import__('kpose.train')",
    ],
)
def test_the_rule_sees_an_import_of_a_higher_floor(statement, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "kpose" / "core" / "errors.py"
    file.parent.mkdir(parents=True)
    file.write_text(f"def late():\n    {statement}\n")
    assert list(_violations(file))
    file.write_text("from kpose.core import files\nfrom . import geometry\nimport kpose\nkpose.__version__\n")
    assert not list(_violations(file))
