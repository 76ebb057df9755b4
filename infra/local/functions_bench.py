#!/usr/bin/env python3
"""Builds functions as for AWS, with the floor beside them, and measures them: tests/bench.

    infra/local/functions_bench.py [options of the benchmark: --help lists them]

REFRESH=1 writes docs/performance.md from the run. Where Node is installed, the functions in tests/bench/compared are
measured beside accepting.
"""

import os
import shlex
import shutil
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
    compared(folder)
    sys.exit(subprocess.run([*bench, "--functions", folder], cwd=ROOT).returncode)


def compared(folder: Path) -> None:
    """Puts the functions in other languages into the folder, each as a script that starts it."""
    sources = ROOT / "tests/bench/compared"
    commands = {}
    # SAM brings boto3 along.
    run(ROOT / "infra/local/venv.sh", "sam")
    commands["boto3"] = [ROOT / ".venv/sam/bin/python", sources / "accept.py"]
    if shutil.which("node") and shutil.which("npm"):
        run(ROOT / "infra/local/npm.sh", "compared")
        bundle, packages = folder / "Node" / "accept.mjs", ROOT / ".venv/compared/node_modules"
        # Bundled as usual: for this version, without what Node has, its dependencies where they were installed.
        options = ["--bundle", "--minify", "--platform=node", "--format=esm", "--target=node20", f"--outfile={bundle}"]
        banner = "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);"
        options += [f"--banner:js={banner}", "--log-level=warning"]
        run(packages / ".bin/esbuild", sources / "accept.mjs", *options, env={"NODE_PATH": str(packages)})
        commands["Node"] = [shutil.which("node"), bundle]
    for name, command in commands.items():
        script = folder / name / "bootstrap"
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\nexec {shlex.join(map(str, command))}\n")
        script.chmod(0o755)


def run(*command: Path | str, env: dict[str, str] | None = None) -> None:
    if subprocess.run([str(word) for word in command], env={**os.environ, **(env or {})}).returncode:
        sys.exit(1)


if __name__ == "__main__":
    main()
