"""The scheduler examples do every shard once, as the schedulers would call them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from faprompt.bulk import merge_shards
from tests.helpers import small

ROOT = Path(__file__).resolve().parents[2]
SLURM, JOB = ROOT / "deploy/slurm-array.sh", ROOT / "deploy/kubernetes-indexed-job.yaml"
DOCS = ROOT / "docs" / "bulk.md"


@pytest.fixture
def place(tmp_path):
    """Pictures, one of them broken, and the programs `faprompt` and `srun` on the path."""
    for number in range(5):
        small.picture_file(tmp_path / "in" / f"{number}.png", seed=number)
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    programs = tmp_path / "bin"
    programs.mkdir()
    run = "from faprompt.cli.main import run; run()"
    (programs / "faprompt").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{run}" "$@"\n')
    (programs / "srun").write_text('#!/bin/sh\necho "srun $*" >&2\nexec "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    return tmp_path


def call(place, *command, **variables):
    environment = {name: value for name, value in os.environ.items() if "SLURM" not in name}
    environment |= {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment |= {"INPUT": str(place / "in"), "OUT": str(place / "out"), "MODEL": "tiny"}
    return subprocess.run(
        [*map(str, command)], env=environment | variables, cwd=place, capture_output=True,
        text=True,
    )  # fmt: skip


def check_merged(place, shards: int) -> None:
    told = merge_shards(place / "out")
    assert (told.n_ok, told.n_error, told.shards) == (5, 1, shards)
    rows = [json.loads(line) for line in (place / "out/results.jsonl").read_text().splitlines()]
    assert len({row["path"] for row in rows}) == 6


def test_slurm(place):
    bash = shutil.which("bash") or pytest.skip("bash is not installed")
    for task in (1, 2):
        done = call(
            place, bash, SLURM, SLURM_ARRAY_TASK_ID=str(task), SLURM_ARRAY_TASK_COUNT="2",
            SLURM_CPUS_PER_TASK="1",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"srun faprompt predict {place / 'in'} --model tiny" in done.stderr
        assert f"shard {task}/2: " in done.stderr
    check_merged(place, 2)
    refused = call(place, bash, SLURM, SLURM_ARRAY_TASK_ID="3", SLURM_ARRAY_TASK_COUNT="2")
    assert refused.returncode == 2 and "I/N" in refused.stderr
    assert call(place, bash, SLURM, INPUT="").returncode == 1
    array = re.search(r"#SBATCH --array=1-(\d+)", SLURM.read_text())
    assert array and f"SLURM_ARRAY_TASK_COUNT:-{array[1]}" in SLURM.read_text()


def test_kubernetes(place):
    job = yaml.safe_load(JOB.read_text())
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"], spec["completionMode"]) == (
        "batch/v1",
        "Job",
        "Indexed",
    )
    (container,) = spec["template"]["spec"]["containers"]
    values = {entry["name"]: entry["value"] for entry in container["env"]}
    assert values["SHARDS"] == str(spec["completions"]) and spec["parallelism"] <= 40
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
    command = [*container["command"][:2], container["command"][2].replace("small", "tiny")]
    for index in (0, 1):
        done = call(place, *command, JOB_COMPLETION_INDEX=str(index), SHARDS="2")
        assert done.returncode == 0, done.stderr
        assert f"shard {index + 1}/2: " in done.stderr
    check_merged(place, 2)
    assert call(place, *command, JOB_COMPLETION_INDEX="2", SHARDS="2").returncode != 0


def test_gnu_parallel(place):
    """The line of the guide; a stub stands for `parallel` where it is not installed."""
    line = next(each for each in DOCS.read_text().splitlines() if each.startswith("parallel "))
    line = line.replace("small", "tiny").replace("/data/lot", "in").replace("/data/results", "out")
    line = re.sub(r"/40\b", "/2", line).replace("seq 40", "seq 2").replace("{1..40}", "1 2")
    if not shutil.which("parallel"):
        stub = (
            f"#!{sys.executable}\n"
            "import subprocess, sys\n"
            "words, _, items = ' '.join(sys.argv[1:]).partition(' ::: ')\n"
            "command = words[words.index('faprompt'):]\n"
            "sys.exit(sum(subprocess.call(command.replace('{}', item), shell=True) not in (0, 3)\n"
            "             for item in items.split()))\n"
        )
        (place / "bin" / "parallel").write_text(stub)
        (place / "bin" / "parallel").chmod(0o755)
    done = call(place, shutil.which("bash") or "sh", "-c", line)
    assert "shard 2/2: " in done.stderr, done.stderr
    check_merged(place, 2)
