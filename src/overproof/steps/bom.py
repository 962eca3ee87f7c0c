"""What a release is made of (CycloneDX 1.6) and made from (in-toto, SLSA v1), as plain JSON values."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROVENANCE_TYPE = "https://slsa.dev/provenance/v1"
STATEMENT = "https://in-toto.io/Statement/v1"
SHA = re.compile(r"[0-9a-f]{64}")


def bill_of_materials(facts: Mapping[str, Any], *, task: str, owner: str, software: Mapping[str, str], bundle: Path | None) -> dict[str, Any]:
    """
    The ML-BOM with the software that serving needs.

    Args:
        facts: of the dossier.
        task: its name.
        owner: who answers for it; may be empty.
        software: package to version.
        bundle: the packed candidate, whose files are listed by digest.

    Returns: a CycloneDX 1.6 document.
    """
    evidence, decision = facts["evidence"], facts["decision"]
    report, data = evidence.get("report"), evidence.get("data")
    chosen = next((one for one in report["candidates"] if one["name"] == report["chosen"]), None) if report else None
    version = decision.get("id") or "not-released"
    model: dict[str, Any] = {
        "type": "machine-learning-model", "bom-ref": "model", "name": task, "version": version,
        "description": f"{chosen['name'] if chosen else 'no candidate'}: {facts['verdict']}",
        "modelCard": _card(facts, chosen, task),
    }  # fmt: skip
    if owner:
        model["supplier"] = {"name": owner}
    parts: list[dict[str, Any]] = []
    if bundle is not None:
        parts += [{"type": "file", "bom-ref": f"file:{path}", "name": path, "hashes": [{"alg": "SHA-256", "content": digest}]} for path, digest in files_of(bundle).items()]
    if data:
        pin = data["pin"]
        parts.append({
            "type": "machine-learning-model", "bom-ref": "teacher", "name": pin["model"], "version": pin["revision"] or "not given",
            "supplier": {"name": pin["provider"] or "not given"}, "description": "the teacher; its weights are no part of this release",
        })  # fmt: skip
        parts += [
            {"type": "data", "bom-ref": f"data:{split}", "name": f"{split} rows", "data": [{"type": "dataset", "name": f"{split} rows", "contents": {"properties": [{"name": "rows", "value": str(n)}]}}]}
            for split, n in data["rows"].items()
        ]  # fmt: skip
    parts += [{"type": "library", "bom-ref": f"pkg:{name}", "name": name, "version": v, "purl": f"pkg:pypi/{name.lower()}@{v}"} for name, v in sorted(software.items())]
    seed = hashlib.sha256(json.dumps([task, version, facts["date"], facts["overproof"]]).encode()).hexdigest()
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(seed[:32], version=4)}", "version": 1,
        "metadata": {
            "timestamp": f"{facts['date']}T00:00:00Z", "component": model,
            "tools": {"components": [{"type": "application", "name": "overproof", "version": facts["overproof"]}]},
        },
        "components": parts, "dependencies": [{"ref": "model", "dependsOn": [one["bom-ref"] for one in parts]}],
    }  # fmt: skip


def _card(facts: Mapping[str, Any], chosen: Mapping[str, Any] | None, task: str) -> dict[str, Any]:
    data, decision = facts["evidence"].get("data"), facts["decision"]
    metrics = [
        {"type": name, "slice": one["slice"], "value": f"{f['value']:.4f}", "confidenceInterval": {"lowerBound": f"{f['low']:.4f}", "upperBound": f"{f['high']:.4f}"}}
        for one in (chosen or {}).get("slices", []) for name in ("accuracy", "fidelity", "served_accuracy", "served_fidelity", "kept")
        if (f := one.get(name)) and f["value"] is not None
    ]  # fmt: skip
    limits = [f"{one['id']} {one['outcome']}: {one['reason']}" for one in decision["findings"] if one["outcome"] != "pass"]
    limits += (decision.get("certificate") or {}).get("assumptions", [])
    return {
        "modelParameters": {"task": task, "datasets": [{"ref": f"data:{split}"} for split in (data or {}).get("rows", {})]},
        "quantitativeAnalysis": {"performanceMetrics": metrics},
        "considerations": {"useCases": [f"the task {task!r} and nothing else"], "technicalLimitations": limits or ["none recorded"]},
    }


def provenance(facts: Mapping[str, Any], *, task: str, digests: Mapping[str, str], bundle: Path) -> dict[str, Any]:
    """
    What was trained from what, by digest.

    Args:
        facts: of the dossier.
        task: its name.
        digests: file of the project to SHA-256.
        bundle: the packed candidate.

    Returns: an in-toto Statement with a SLSA v1 predicate; its subjects are the bundle's files.
    """
    evidence, decision = facts["evidence"], facts["decision"]
    chosen = (evidence.get("report") or {}).get("chosen")
    trained = next((one for one in evidence.get("trained", []) if one["name"] == chosen), None) or {}
    sources = {f"project-file:{name}": digest for name, digest in digests.items()} | {f"artifact:{name}": digest for name, digest in evidence["digests"].items()}
    if data := evidence.get("data"):
        sources |= {"teacher-prompt": data["pin"]["prompt_digest"], "clearance": data["clearance"]["id"], "terms-entry": data["clearance"]["registry_digest"]}
    teacher = {"model": data["pin"]["model"], "revision": data["pin"]["revision"], "provider": data["pin"]["provider"]} if data else {}
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(files_of(bundle).items())],
        "predicateType": PROVENANCE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:overproof:distil:v1",
                "externalParameters": {"task": task, "candidate": chosen, "teacher": teacher, "project": digests.get("project", "")},
                "internalParameters": {"seed": trained.get("seed"), "rows": trained.get("rows"), "use": trained.get("use"), "options": trained.get("options", {})},
                "resolvedDependencies": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(sources.items()) if SHA.fullmatch(digest)],
            },
            "runDetails": {
                "builder": {"id": "urn:overproof", "version": {"overproof": facts["overproof"]}},
                "metadata": {"invocationId": decision.get("id") or "not-released"},
            },
        },
    }


def files_of(bundle: Path) -> dict[str, str]:
    """
    A bundle's files by digest, its manifest included.

    Args:
        bundle: a packed candidate.

    Returns: path to SHA-256.
    """
    manifest = bundle / "manifest.json"
    listed = {one["path"]: one["sha256"] for one in json.loads(manifest.read_text(encoding="utf-8"))}
    return {**listed, "manifest.json": hashlib.sha256(manifest.read_bytes()).hexdigest()}
