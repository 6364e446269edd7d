"""Every script in ``examples`` runs in a process of its own, in an empty folder, with warnings as errors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
SCRIPTS = sorted((PROJECT / "examples").glob("*.py"))
ARGUMENTS = {"demo.py": ["--months", "3"]}


def run(script, folder, *arguments):
    path = os.pathsep.join([str(PROJECT), str(PROJECT / "parsers"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "error", str(script), *ARGUMENTS.get(script.name, []), *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_example_runs(script, tmp_path):
    assert "equal" in run(script, tmp_path), "an example ends by saying what it compared"


def test_demo_leaves_a_picture(tmp_path):
    run(PROJECT / "examples" / "demo.py", tmp_path)
    assert (tmp_path / "demo-output" / "chunks.png").read_bytes().startswith(b"\x89PNG")
