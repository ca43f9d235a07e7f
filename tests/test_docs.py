"""README.md and docs/: every block is tested; every flag, field, module, link and picture exists; tables are whole.

The blocks themselves run on small data: those of docs/python.md here, the others in slow tests, a page each.
"""

import functools
import importlib
import importlib.util
import os
import re
import shutil
import subprocess

import pytest

from kpose import config as config_lib
from tests import docs_data

ALL_PAGES = (*docs_data.PAGES, *docs_data.OTHER_PAGES)
FIELDS = config_lib.flatten(config_lib.default())
BLOCKS = [block for page in docs_data.PAGES for block in docs_data.blocks(page)]
# Flags of other programs that the pages name, and what every command has.
OTHER_FLAGS = {"help", "constraint", "ntasks-per-node", "profile"}


@functools.cache
def flags_of(command):
    """The names of the flags of a module, or of a console script."""
    module = docs_data.console_scripts().get(command, command)
    spec = importlib.util.find_spec(module)
    assert spec, f"there is no command {command}"
    if spec.submodule_search_locations is not None:
        module += ".__main__"
    return {name for flag in importlib.import_module(module).FLAGS for name in (flag, f"no{flag}")}


@pytest.mark.parametrize("page", docs_data.PAGES)
def test_every_block_has_an_entry_that_says_how_it_is_tested(page):
    found = [block for block in docs_data.blocks(page) if block.language != "text"]
    entries = docs_data.BLOCKS.get(page, ())
    for block, (start, _) in zip(found, entries, strict=False):
        first = block.text.splitlines()[0]
        assert start in first, f"{block.name} begins with {first!r}, its entry in docs_data.BLOCKS with {start!r}"
    assert len(found) == len(entries), f"{page} has {len(found)} blocks, docs_data.BLOCKS has {len(entries)} entries"
    assert [b.name for b in docs_data.blocks(page) if b.language not in docs_data.LANGUAGES] == []


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_the_syntax_of_a_block(block):
    if block.language == "bash":
        checked = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
        assert not checked.returncode, f"{block.name}: {checked.stderr}"
    elif block.language == "python":
        compile(block.text, block.name, "exec")
    elif block.language == "yaml":
        pytest.importorskip("yaml").safe_load(block.text)


@pytest.mark.parametrize("page", docs_data.PAGES)
def test_every_flag_field_and_recipe_of_the_commands_exists(page):
    texts = [block.text for block in docs_data.blocks(page)] + docs_data.inline_code(page)
    for module, flags, text in [command for some in texts for command in docs_data.commands(some)]:
        for flag in flags:
            if flag.startswith("config."):
                assert flag.removeprefix("config.") in FIELDS, text
            else:
                assert flag in flags_of(module), f"{page}: --{flag} is no flag of {text}"
        for name in re.findall(r"--config=([\w./]+)", text):
            assert name == "mine.py" or config_lib.recipe_path(name)


@pytest.mark.parametrize("page", docs_data.PAGES)
def test_every_flag_field_and_module_in_the_text_exists(page):
    known = set().union(OTHER_FLAGS, flags_of("kpose.demo"), *map(flags_of, docs_data.console_scripts()))
    for code in docs_data.inline_code(page):
        for flag in re.findall(r"(?:^|\s)--([A-Za-z][\w.-]*)", code):
            field = flag.removeprefix("config.")
            assert field in FIELDS if field != flag else flag in known, f"{page}: `{code}`"
        section = re.fullmatch(r"(?:config\.)?((?:data|model|loss|optimizer|schedule|augment|teacher)\.\w+)", code)
        # `model` is also a variable of the snippets.
        if section and section[1] != "model.predict":
            assert section[1] in FIELDS, f"{page}: `{code}`"
        name = re.match(r"(?:kpose|tfrecords_tools)(?:\.\w+)+", code)
        if name:
            assert exists(name[0]), f"{page}: `{code}`"


def exists(name):
    """Whether a dotted name is a module, or something in a module."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.util.find_spec(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        if found:
            rest = parts[count:]
            return not rest or hasattr(importlib.import_module(".".join(parts[:count])), rest[0])
    return False


@pytest.mark.parametrize("page", ALL_PAGES)
def test_every_link_and_picture_exists(page):
    folder = os.path.join(docs_data.REPOSITORY, os.path.dirname(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", docs_data.read(page)):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        whole = os.path.normpath(os.path.join(folder, path)) if path else os.path.join(docs_data.REPOSITORY, page)
        assert os.path.isfile(whole), f"{page}: {target} does not exist"
        if anchor:
            assert anchor in anchors(os.path.relpath(whole, docs_data.REPOSITORY)), f"{page}: no heading for {target}"


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = [line.lstrip("#").strip() for _, line in docs_data.prose(page) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL_PAGES)
def test_every_table_is_whole(page):
    lines = re.sub(r"^```.*?^```", "", docs_data.read(page), flags=re.M | re.S).splitlines()
    for before, line, after in zip(["", *lines], lines, [*lines[1:], ""], strict=False):
        if not line.startswith("|"):
            continue
        assert line.endswith("|"), f"{page}: {line}"
        cells = line.replace("\\|", "").count("|")
        if not before.startswith("|"):
            assert not before.strip(), f"{page}: no empty line before {line}"
            assert re.fullmatch(r"\|( ?:?-+:? ?\|)+", after), f"{page}: no line of dashes after {line}"
        if after.startswith("|"):
            assert after.replace("\\|", "").count("|") == cells, f"{page}: another number of cells: {after}"


def test_the_readme_is_short_and_links_every_page():
    readme = docs_data.read("README.md")
    assert len(readme.splitlines()) <= 160
    for page in (*docs_data.PAGES[1:], *docs_data.OTHER_PAGES):
        assert f"]({page})" in readme, page


@pytest.mark.parametrize("page", docs_data.PAGES)
def test_lines_of_prose_are_short(page):
    assert [f"{page}:{number}" for number, line in docs_data.prose(page) if len(line) > 100] == []


def test_every_extra_and_make_target_exists():
    text = "\n".join(docs_data.read(page) for page in ALL_PAGES)
    setup, makefile = docs_data.read("setup.py"), docs_data.read("Makefile")
    assert "kpose[" not in text
    for extras in re.findall(r"pip install '\.\[([\w,]+)\]'", text):
        for extra in extras.split(","):
            assert f'"{extra}": [' in setup, extra
    for target in re.findall(r"(?:`|^)make ([\w-]+)", text, flags=re.M):
        assert f"\n{target}:" in makefile, target


def test_the_snippets_of_the_python_page(tmp_path, monkeypatch, without_report):
    docs_data.make_data(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    load_recipe = config_lib.load_recipe

    def load_small(name):
        config = load_recipe(name)
        config.steps, config.evaluate_batches, config.data.shuffle_buffer = 2, 1, 16
        config.precision, config.model.input_size = "float32", (32, 32)
        return config

    monkeypatch.setattr(config_lib, "load_recipe", load_small)
    names = {}
    for block, _ in docs_data.tested_blocks("docs/python.md"):
        exec(compile(block.text, block.name, "exec"), names)
    assert names["people"].keypoints.shape[1:] == (17, 3)
    assert os.path.isfile("runs/coco_integral/serving/1/saved_model.pb")
    assert set(names["written"]) == {"path", "bytes", "largest_difference"}
    for key in ("step", "epoch", "loss", "learning_rate", "images_per_second", "gradient_norm", "spread", "val_spread"):
        assert key in names["logs"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder that the blocks start from; its files are never changed."""
    folder = str(tmp_path_factory.mktemp("docs"))
    docs_data.make_data(folder)
    docs_data.make_records(folder)
    docs_data.make_stand_ins(os.path.join(folder, "bin"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in docs_data.PAGES if page != "docs/python.md"])
def test_the_blocks_of_a_page_run(page, prepared, tmp_path, monkeypatch):
    todo = [block for block, how in docs_data.tested_blocks(page) if how == docs_data.RUN]
    if not todo:
        pytest.skip("none of its blocks runs")
    folder = str(tmp_path / "work")
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", os.path.join(folder, "bin") + os.pathsep + os.environ["PATH"])
    monkeypatch.setenv("PYTHONPATH", docs_data.REPOSITORY)
    for recipe in docs_data.EXPECTED_RUNS.get(page, ()):
        train = f"python -m kpose.train --config={recipe} --workdir=runs/{recipe}"
        run_bash(f"{train} --config.data.train='records/padded/train-*'")
    for block in todo:
        if block.language == "python":
            exec(compile(block.text, block.name, "exec"), {})
        elif "jq" not in block.text or shutil.which("jq"):
            run_bash(block.text, block.name)


def run_bash(text, name="preparation"):
    done = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", text], capture_output=True, text=True)
    assert not done.returncode, f"{name}: {text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
