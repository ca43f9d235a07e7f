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
    for folder in ("kpose", "tfrecords_tools"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def _package(module):
    """The package on a floor that a module belongs to; None for `kpose` itself and for other libraries."""
    return next((name for name in FLOOR if module == name or module.startswith(f"{name}.")), None)


def _imports(path):
    """(line, module) of every import statement of kpose or tfrecords_tools, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from kpose import config` names a module, `from kpose.config import default` a function of one.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] in ("kpose", "tfrecords_tools"))


def _violations(path):
    own = _package(".".join(path.relative_to(ROOT).with_suffix("").parts))
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
    outside = [path for path in _files() if _package(".".join(path.relative_to(ROOT).with_suffix("").parts)) is None]
    assert outside == [ROOT / ROOT_PACKAGE / "__init__.py"]


@pytest.mark.parametrize("statement", ["from kpose.train import trainer", "import kpose.train.trainer"])
def test_the_rule_sees_an_import_of_a_higher_floor(statement, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "kpose" / "core" / "errors.py"
    file.parent.mkdir(parents=True)
    file.write_text(f"def late():\n    {statement}\n")
    assert len(list(_violations(file))) == 1
