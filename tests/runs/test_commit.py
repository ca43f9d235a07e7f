"""The commit in starts.json: found without a lock, which a full disk would leave in the checkout."""

import os
import resource
import shutil
import subprocess

import pytest

import kpose
from kpose.runs import starts


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_found_without_a_lock(tmp_path, monkeypatch):
    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    module = tmp_path / "kpose" / "__init__.py"
    module.parent.mkdir()
    monkeypatch.setattr(kpose, "__file__", str(module))
    assert starts._commit() is None
    module.write_text("1\n")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message=first")
    commit = git("rev-parse", "HEAD")
    # Files with other times would make git write its index again.
    os.utime(module, (0, 0))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        assert starts._commit() == commit
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / ".git" / "index.lock").exists()
    module.write_text("2\n")
    assert starts._commit() == f"{commit}+"
