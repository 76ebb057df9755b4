#!/usr/bin/env python3
"""Builds a release into a folder: zips, templates, command line, checksums. `make deploy` deploys such a folder.

    infra/release.py [--arch arm64|x86_64]… [--function NAME]… [--command-line] [--to dist]
    infra/release.py --compare dist/SHA256SUMS [the same options]

    dist/arm64/functions/<name>.zip    each with the one file that Lambda starts, `bootstrap`
    dist/arm64/template.yaml           infra/template.yaml, with these zips and this architecture
    dist/arm64/chainloop               the command line, for Linux
    dist/arm64/chainloop-integrations  the same by its second name, beside the official command: a symbolic link
    dist/x86_64/…
    dist/SHA256SUMS                    of all of it: `sha256sum --check SHA256SUMS`

The same source gives the same bytes, wherever it is built: paths of the machine are left out of the binaries, and zips
have no times. --compare builds into a folder of its own, from a copy of the source under another path, and checks that.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What an architecture is called by Lambda, and by Rust.
TARGETS = {"arm64": "aarch64-unknown-linux-gnu", "x86_64": "x86_64-unknown-linux-gnu"}
HERE = "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"
COMMAND_LINE = "chainloop"
SECOND_NAME = "chainloop-integrations"
SUMS = "SHA256SUMS"


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds a release.")
    parser.add_argument("--arch", action="append", choices=TARGETS, help="of the functions; both by default")
    parser.add_argument("--function", action="append", metavar="NAME", help="build these alone")
    parser.add_argument("--command-line", action="store_true", help="build the command line too")
    parser.add_argument("--to", type=Path, default=ROOT / "dist")
    parser.add_argument("--compare", type=Path, metavar="SUMS", help="compare a second build with these checksums")
    arguments = parser.parse_args()
    what = (arguments.arch or list(TARGETS), arguments.function, arguments.command_line)
    if arguments.compare:
        compare(arguments.compare, *what)
    else:
        release(ROOT, arguments.to.resolve(), *what)
        show(arguments.to)


def release(source: Path, to: Path, archs: list[str], functions: list[str] | None, command_line: bool) -> None:
    """Builds from this source into this folder, in place of the release in it, if there is one."""
    if to.exists() and any(to.iterdir()) and not (to / SUMS).exists():
        sys.exit(f"{to} holds something else than a release: name another folder")
    # Where a build fails, the release before stays.
    finished, to = to, to.with_name(f"{to.name}.unfinished")
    shutil.rmtree(to, ignore_errors=True)
    names = functions or sorted(path.stem for path in (source / "functions/src/bin").glob("*.rs"))
    for arch in archs:
        folder = to / arch
        (folder / "functions").mkdir(parents=True)
        # Each package by itself: together, the features of the command line would be those of the functions too.
        for name, binary in zip(names, build(source, arch, "functions", names)):
            pack(binary, folder / "functions" / f"{name}.zip")
        (folder / "template.yaml").write_text(template(source, arch))
        if command_line:
            [binary] = build(source, arch, COMMAND_LINE, [COMMAND_LINE])
            shutil.copy(binary, folder / COMMAND_LINE)
            (folder / SECOND_NAME).symlink_to(COMMAND_LINE)
    files = sorted(path for path in to.rglob("*") if path.is_file())
    (to / SUMS).write_text("".join(f"{sha256(path)}  {path.relative_to(to)}\n" for path in files))
    shutil.rmtree(finished, ignore_errors=True)
    to.rename(finished)


def build(source: Path, arch: str, package: str, names: list[str]) -> list[Path]:
    """The binaries of these names, built for this architecture."""
    started = time.monotonic()
    built = source / "target/release-of" / arch
    command = ["cargo", "lambda", "build", "--release", "--locked", "--target", TARGETS[arch], "--package", package]
    command += ["--lambda-dir", str(built), *(word for name in names for word in ("--bin", name))]
    cargo_home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    environment = {
        **os.environ,
        "PATH": f"{ROOT}/.venv/cargo-lambda/bin:{os.environ['PATH']}",
        # Panics name the file that they are in.
        "RUSTFLAGS": f"--remap-path-prefix={source}=. --remap-path-prefix={cargo_home}=cargo",
    }
    if known := commit():
        environment["CHAINLOOP_COMMIT"] = known
    if subprocess.run(command, cwd=source, env=environment).returncode:
        sys.exit(f"the build of {package} for {arch} failed")
    print(f"built {package} for {arch} in {time.monotonic() - started:.0f} s", flush=True)
    return [built / name / "bootstrap" for name in names]


def commit() -> str:
    """The commit of the source, for `chainloop version`; empty where the source is no repository."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    if not shutil.which("git"):
        return ""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def pack(binary: Path, to: Path) -> None:
    # A zip has no time before 1980.
    entry = zipfile.ZipInfo("bootstrap", (1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o100755 << 16
    with zipfile.ZipFile(to, "w") as archive:
        archive.writestr(entry, binary.read_bytes(), zipfile.ZIP_DEFLATED, 9)


def template(source: Path, arch: str) -> str:
    """The template with the release's zips instead of those that were just built, and this architecture."""
    text = (source / "infra/template.yaml").read_text()
    for before, after in [
        ("../target/lambda/", "functions/"),
        ("/bootstrap.zip", ".zip"),
        (f"Default: {next(iter(TARGETS))}\n", f"Default: {arch}\n"),
    ]:
        if before not in text:
            sys.exit(f"infra/template.yaml has no {before.strip()!r}")
        text = text.replace(before, after)
    return text


def show(to: Path) -> None:
    """Sizes in bytes, and the first letters of the digests: a table to compare releases by."""
    print(f"{'zip':>10}  {'bootstrap':>10}  {'sha256':12}  file")
    for line in (to / SUMS).read_text().splitlines():
        digest, name = line.split("  ")
        path = to / name
        whole = zipfile.ZipFile(path).getinfo("bootstrap").file_size if path.suffix == ".zip" else ""
        print(f"{path.stat().st_size:>10}  {whole:>10}  {digest[:12]}  {name}")


def compare(sums: Path, *what) -> None:
    """Builds a second time from a copy of the source elsewhere. Ends with the files that differ, if any."""
    with tempfile.TemporaryDirectory(prefix="release-") as elsewhere:
        source = Path(elsewhere) / "copy"
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
        for name in tracked.decode().split("\0")[:-1]:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
        release(source, Path(elsewhere) / "dist", *what)
        again = (Path(elsewhere) / "dist" / SUMS).read_text().splitlines()
    first = sums.read_text().splitlines()
    differ = sorted({line.split("  ")[1] for line in set(first) ^ set(again)})
    if differ:
        sys.exit("built twice, these differ:\n" + "\n".join(differ))
    print(f"built twice, {len(first)} files are the same, byte for byte")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
