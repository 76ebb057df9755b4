"""Checks the documents' pictures: each that a document shows exists, each is shown, and an SVG is a picture alone.

    python3 infra/pictures.py

An SVG that refers to something elsewhere, or holds a script, is shown differently by each reader, or not at all.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ACTIVE = {"script", "foreignObject", "iframe", "image", "a"}


def shown(document: Path) -> set[Path]:
    """Pictures of a document, by their paths."""
    links = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"", document.read_text())
    return {(document.parent / (one or other)).resolve() for one, other in links}


def faults(picture: Path) -> list[str]:
    """What an SVG has that is more than a picture."""
    found = []
    for element in ElementTree.parse(picture).iter():
        name = element.tag.rpartition("}")[2]
        if name in ACTIVE:
            found.append(f"has the element {name}")
        for key, value in element.attrib.items():
            key = key.rpartition("}")[2]
            if key.startswith("on") or key in ("href", "src") and not value.startswith("#"):
                found.append(f"{name} has {key}={value}")
        for text in [element.text or "" if name == "style" else "", *element.attrib.values()]:
            found += re.findall(r"@import.*|url\((?!#)[^)]*\)|javascript:.*", text)
    return found


def main() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    used = set().union(*map(shown, documents))
    kept = {path for ending in ("png", "svg") for path in (ROOT / "docs").rglob(f"*.{ending}")}
    complaints = [f"{path}: a document shows it, and it is not there" for path in used - kept]
    complaints += [f"{path}: no document shows it" for path in kept - used]
    for picture in (path for path in kept if path.suffix == ".svg"):
        complaints += [f"{picture}: {fault}" for fault in faults(picture)]
    if complaints:
        sys.exit("\n".join(sorted(complaints)))


if __name__ == "__main__":
    main()
