"""Attestations in Chainloop's format, each another one."""

import base64
import hashlib
import json
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Sbom:
    """A CycloneDX document of about a size, which does not compress to nothing."""

    content: bytes

    @classmethod
    def of(cls, size_bytes: int, seed: int = 0) -> "Sbom":
        draw = random.Random(seed)
        name = f"{draw.getrandbits(64):016x}"
        component = {"type": "library", "name": name, "version": "1.0.0", "purl": f"pkg:cargo/{name}@1.0.0"}
        one = len(json.dumps(component, separators=(",", ":"))) + 1
        components = [component]
        for _ in range(size_bytes // one):
            name = f"{draw.getrandbits(64):016x}"
            components.append({**component, "name": name, "purl": f"pkg:cargo/{name}@1.0.0"})
        document = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}
        return cls(json.dumps(document, separators=(",", ":")).encode())

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"


def envelope(
    workflow: str, run: str, size_bytes: int = 0, sbom: Sbom | None = None, inline: bool = False, image: str = ""
) -> bytes:
    """A DSSE envelope over a run of `project/name`, padded to about a size; `image` is the digest of one it built."""
    project, name = workflow.split("/")
    materials = []
    if image:
        material = {
            "name": f"registry.example.org/{name}",
            "digest": {"sha256": image.removeprefix("sha256:")},
            "annotations": {
                "chainloop.material.name": "image",
                "chainloop.material.type": "CONTAINER_IMAGE",
            },
        }
        materials.append(material)
    if sbom:
        material = {
            "name": "sbom.cdx.json",
            "digest": {"sha256": sbom.digest.removeprefix("sha256:")},
            "annotations": {
                "chainloop.material.name": "sbom",
                "chainloop.material.type": "SBOM_CYCLONEDX_JSON",
                "chainloop.material.cas.inline" if inline else "chainloop.material.cas": True,
            },
        }
        if inline:
            material["content"] = base64.b64encode(sbom.content).decode()
        materials.append(material)
    predicate = {
        "metadata": {
            "name": name,
            "workflowName": name,
            "project": project,
            "workflowRunID": run,
            "initializedAt": "2026-01-02T03:05:00Z",
            "finishedAt": "2026-01-02T03:09:30Z",
        },
        "builder": {"id": "load"},
        "buildType": "chainloop.dev/workflowrun/v0.1",
        "runnerType": "RUNNER_TYPE_UNSPECIFIED",
        "materials": materials,
    }
    state = hashlib.sha256(json.dumps(predicate).encode()).hexdigest()
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": f"chainloop.workflow.{name}", "digest": {"sha256": state}}],
        "predicateType": "chainloop.dev/attestation/v0.2",
        "predicate": predicate,
    }
    # Base64 makes four of three.
    padding = size_bytes * 3 // 4 - len(json.dumps(statement))
    if padding > 0:
        predicate["annotations"] = {"padding": "x" * padding}
    payload = base64.b64encode(json.dumps(statement, separators=(",", ":")).encode()).decode()
    signature = base64.b64encode(hashlib.sha256(payload.encode()).digest()).decode()
    signatures = [{"keyid": "", "sig": signature}]
    return json.dumps(
        {"payloadType": "application/vnd.in-toto+json", "payload": payload, "signatures": signatures}
    ).encode()
