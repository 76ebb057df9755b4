#!/usr/bin/env python3
"""Fuzz with libFuzzer: inputs that reach new code are kept in .local/fuzz, and what they showed is summed up.

    infra/fuzz.py --minutes 60 [--target envelope]

As many targets run at a time as there are processors, and all together take the minutes. Seeds are the corpus in
tests/fuzz, what tests/fuzz/src/lib.rs names beside it, and SAMPLES_DIR where that is set. A fault ends its target, and
its input is named. It belongs into the corpus, with the change that mends it.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = ROOT / ".local/fuzz"
FINDINGS = KEPT / "findings"
# A target's own limits, which are shorter, tell which input it was. These end what would never.
LIMITS = ["-timeout=60", "-rss_limit_mb=4096"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="minutes for all targets together")
    parser.add_argument("--target", default="", help="this target alone")
    arguments = parser.parse_args()
    binary = build()
    targets = listed(binary)
    if arguments.target:
        if arguments.target not in targets:
            sys.exit(f"there is no target {arguments.target}; there is {', '.join(targets)}")
        targets = {arguments.target: targets[arguments.target]}
    FINDINGS.mkdir(parents=True, exist_ok=True)
    at_once = min(os.cpu_count() or 1, len(targets))
    seconds = max(1, int(arguments.minutes * 60 * at_once / len(targets)))
    print(f"{len(targets)} targets, {at_once} at a time, {seconds} s each", flush=True)
    with ThreadPoolExecutor(at_once) as pool:
        passed = list(pool.map(lambda item: fuzz(binary, *item, seconds), targets.items()))
    if not all(passed):
        sys.exit(1)


def build() -> str:
    host = re.search(r"host: (.+)", subprocess.check_output(["rustc", "-vV"], text=True)).group(1)
    environment = os.environ | {"RUSTC_WRAPPER": str(ROOT / "infra/coverage.sh")}
    command = ["cargo", "build", "--target", host, "--profile", "local", "--package", "fuzz", "--features", "libfuzzer"]
    # A folder of its own: what is compiled with counters runs nowhere else.
    target = ROOT / "target/fuzz"
    subprocess.run([*command, "--target-dir", str(target)], cwd=ROOT, env=environment, check=True)
    return str(target / host / "local/fuzz")


def listed(binary: str) -> dict[str, list[str]]:
    """Each target's largest input and the places of its seeds."""
    lines = subprocess.check_output([binary], text=True, env=os.environ | {"FUZZ_TARGET": ""}).splitlines()
    fields = [line.split("\t") for line in lines]
    return {name: places for name, *places in fields}


def fuzz(binary: str, name: str, about: list[str], seconds: int) -> bool:
    longest, *seeds = about
    kept = KEPT / name
    kept.mkdir(parents=True, exist_ok=True)
    command = ["nice", binary, f"-max_total_time={seconds}", f"-max_len={longest}", *LIMITS, "-print_final_stats=1"]
    files = [place for place in seeds if pathlib.Path(place).is_file()]
    if files:
        command.append(f"-seed_inputs={','.join(files)}")
    command += [f"-artifact_prefix={FINDINGS}/{name}-", str(kept), *(place for place in seeds if place not in files)]
    log = KEPT / f"{name}.log"
    with log.open("wb") as out:
        code = subprocess.run(command, cwd=ROOT, env=os.environ | {"FUZZ_TARGET": name}, stdout=out, stderr=out).returncode
    text = log.read_text(errors="replace")
    print(f"{name}: {summary(text)}", flush=True)
    if code:
        found = re.findall(r"Test unit written to (\S+)", text)
        reason = re.findall(r"panicked at .*\n.*|ERROR: .*", text)
        print(f"{name}: FAULT {found} {reason[:1]}; all of it: {log}", flush=True)
    return code == 0


def summary(text: str) -> str:
    lines = re.findall(r"#(\d+)\s+\S+\s+cov: (\d+) ft: (\d+) corp: (\d+)/(\S+)", text)
    if not lines:
        return "nothing was run"
    executed, edges, features, inputs, size = lines[-1]
    count = re.search(r"stat::number_of_executed_units:\s+(\d+)", text)
    return f"{count.group(1) if count else executed} executions, {edges} edges, {features} features, corpus {inputs} ({size})"


if __name__ == "__main__":
    main()
