"""Every script in ``examples`` runs in a process of its own, in an empty folder, with warnings as errors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
DEMO = PROJECT / "examples" / "demo.py"
SCRIPTS = sorted(set((PROJECT / "examples").glob("*.py")) - {DEMO})


def run(script, folder, *arguments):
    path = os.pathsep.join([str(PROJECT), str(PROJECT / "parsers"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "error", str(script), *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_example_says_that_values_are_equal(script, tmp_path):
    assert "equal to" in run(script, tmp_path)


def test_demo_verifies_and_draws(tmp_path):
    printed = run(DEMO, tmp_path, "--months", "3")
    assert printed.count("all equal") == 2
    assert (tmp_path / "demo-output" / "chunks.png").read_bytes().startswith(b"\x89PNG")
