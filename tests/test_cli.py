"""The command line: what it prints, and what it exits with."""

import json
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import virtualchunks as vc
from virtualchunks.cli import main


@pytest.fixture
def files(tmp_path):
    for number in range(2):
        data = xr.Dataset({"v": (("t", "x"), np.full((2, 3), number, "i4"))}, {"t": [2 * number, 2 * number + 1]})
        data.to_netcdf(tmp_path / f"{number}.nc", engine="h5netcdf")
    return sorted(map(str, tmp_path.glob("*.nc")))


def test_diagnose_prints_and_exits_with_0(files, capsys):
    assert main(["diagnose", *files]) == 0
    assert "variable v: combines as it is" in capsys.readouterr().out


def test_diagnose_takes_a_glob_and_prints_json(files, tmp_path, capsys):
    assert main(["diagnose", str(tmp_path / "*.nc"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 2


def test_diagnose_exits_with_1_where_not_all_combines(files, capsys):
    with open(files[1], "wb") as file:
        file.write(b"nothing")
    assert main(["diagnose", *files]) == 1
    assert "cannot be opened" in capsys.readouterr().out


def test_verify_references_and_exit_codes(files, tmp_path, capsys):
    refs = tmp_path / "refs.json"
    vc.open_virtual_mfdataset(files).virtual.to_kerchunk(refs, format="json")
    grant = ["--grant", tmp_path.as_uri() + "/"]
    assert main(["verify", str(refs), *grant, "--sample", "all"]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    refs.write_text(refs.read_text().replace("0.nc", "1.nc"))
    assert main(["verify", str(refs), *grant]) in (0, 1)
    capsys.readouterr()
    assert main(["verify", str(refs)]) == 2
    assert "virtualchunks verify: " in capsys.readouterr().err


def test_the_module_runs(files):
    command = [sys.executable, "-m", "virtualchunks.cli", "verify", files[0], "--json"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(found.stdout)["compared"] == 2
