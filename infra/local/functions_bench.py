#!/usr/bin/env python3
"""Builds functions as for AWS, with the floor beside them, and measures them: tests/bench.

    infra/local/functions_bench.py [options of the benchmark: --help lists them]

REFRESH=1 writes docs/performance.md from the run.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "infra"))

from release import HERE, TARGETS, build, pack  # noqa: E402

FLOOR = "echo"


def main() -> None:
    target = TARGETS[HERE]
    options = ["--target", target, "--profile", "local", "--package", "bench", "--bin", "bench"]
    if subprocess.run(["cargo", "build", *options], cwd=ROOT).returncode:
        sys.exit(1)
    bench = [ROOT / "target" / target / "local/bench", *sys.argv[1:]]
    said = subprocess.run([*bench, "--needed"], cwd=ROOT, capture_output=True, text=True)
    if said.returncode:
        sys.exit(said.stderr)
    # Each package by itself, as in a release.
    binaries = build(ROOT, HERE, "functions", said.stdout.split()) + build(ROOT, HERE, FLOOR, [FLOOR])
    for binary in binaries:
        pack(binary, binary.parents[1] / f"{binary.parent.name}.zip")
    folder = binaries[0].parents[1]
    sys.exit(subprocess.run([*bench, "--functions", folder], cwd=ROOT).returncode)


if __name__ == "__main__":
    main()
