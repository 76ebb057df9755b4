"""Which crates may be linked into what runs, and under which licences.

    python3 infra/dependencies.py

Looks at what `cargo metadata` resolves for Linux, without what only builds and tests use. A prebuilt cargo-deny
exists only in a version that does not get through this workspace; these are the checks that we would have it do.
"""

import json
import subprocess
import sys

# Each with the reason: they undo most of what the recipe for a short cold start gains.
BANNED = {
    "aws-lc-sys": "its start-up entropy costs 43 ms of every cold start: use ring",
    "aws-lc-rs": "as aws-lc-sys",
    "aws-config": "2 ms of every cold start and 5 MB of every function: build the configuration by hand",
    "openssl-sys": "TLS is rustls",
    "native-tls": "TLS is rustls",
}
# The same of functions alone: tests have servers that speak it, and the command line trusts what its machine trusts.
BANNED_IN_FUNCTIONS = {
    "h2": "HTTP/2, which nothing there speaks: 0.4 MB of every function",
    "rustls-native-certs": "as many instructions as a cold start has: use the roots in the binary",
}
# Crates of which there are two versions, since others ask for both. Each is a few kilobytes.
TWICE = {"base64", "const-oid", "crypto-common", "digest", "getrandom", "nom", "syn", "synstructure"}
BANNED_VERSIONS = {("hyper", "0."): "a second HTTP stack", ("rustls", "0.21"): "a second TLS stack"}
# One of them must be among a crate's alternatives.
LICENCES = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0",
    "CDLA-Permissive-2.0", "ISC", "MIT", "MIT-0", "Unicode-3.0", "Unlicense", "Zlib",
}  # fmt: skip


def main() -> None:
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", host()]
    metadata = json.loads(subprocess.check_output(command))
    packages = {package["id"]: package for package in metadata["packages"]}
    linked = linked_packages(metadata)
    faults = [fault for package in linked for fault in faults_of(packages[package])]
    faults += faults_of_functions() + second_versions([packages[package] for package in linked])
    for fault in sorted(faults):
        print(fault, file=sys.stderr)
    if faults:
        sys.exit(1)
    print(f"{len(linked)} crates are linked; none is banned, all licences are known")


def host() -> str:
    lines = subprocess.check_output(["rustc", "-vV"], text=True).splitlines()
    return next(line.removeprefix("host: ") for line in lines if line.startswith("host: "))


def linked_packages(metadata: dict) -> set[str]:
    """What the members depend on without development and build dependencies."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    linked, left = set(), list(metadata["workspace_members"])
    while left:
        package = left.pop()
        if package in linked:
            continue
        linked.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                left.append(dependency["pkg"])
    return linked


def faults_of_functions() -> list[str]:
    """By the features that functions are built with, which are fewer than those of the workspace."""
    command = ["cargo", "tree", "--locked", "--package", "functions", "--edges", "normal", "--prefix", "none"]
    names = {line.split()[0] for line in subprocess.check_output(command, text=True).splitlines() if line}
    return [f"{name} is banned in functions: {why}" for name, why in BANNED_IN_FUNCTIONS.items() if name in names]


def second_versions(packages: list[dict]) -> list[str]:
    versions: dict[str, set[str]] = {}
    for package in packages:
        versions.setdefault(package["name"], set()).add(package["version"])
    twice = {name: sorted(found) for name, found in versions.items() if len(found) > 1}
    faults = [f"{name} is there in several versions: {', '.join(twice[name])}" for name in twice.keys() - TWICE]
    return faults + [f"{name} is there once by now: take it out of TWICE" for name in TWICE - twice.keys()]


def faults_of(package: dict) -> list[str]:
    name, version = package["name"], package["version"]
    faults = []
    if name in BANNED:
        faults.append(f"{name} {version} is banned: {BANNED[name]}")
    for (banned, beginning), reason in BANNED_VERSIONS.items():
        if name == banned and version.startswith(beginning):
            faults.append(f"{name} {version} is banned: {reason}")
    if not allowed(package["license"] or ""):
        faults.append(f"{name} {version} has the licence {package['license']!r}, which is not on the list")
    return faults


def allowed(expression: str) -> bool:
    """An SPDX expression: every part joined by AND has an alternative, joined by OR, that is on the list."""
    parts = expression.replace("(", "").replace(")", "").replace("/", " OR ").split(" AND ")
    return all(any(one.strip() in LICENCES for one in part.split(" OR ")) for part in parts)


if __name__ == "__main__":
    main()
