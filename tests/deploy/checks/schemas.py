"""Schemas of objects in the one form that kubeconform reads without a network: a file for each kind, with nothing to look up.

Those of Kubernetes come from the package kubernetes-validate, those of operators from the definitions in their Go modules.
"""

import functools
import importlib.util
import json
import pathlib

import chart
import yaml

# Only its files are used: it is not imported, and so needs nothing else.
PACKAGED = pathlib.Path(importlib.util.find_spec("kubernetes_validate").origin).parent / "kubernetes-json-schema"


def kubernetes(minor, api_version, kind):
    """The strict schema of a kind of Kubernetes 1.`minor`; None when it has no such kind."""
    folder = PACKAGED / f"v1.{minor}.0-local-strict"
    assert folder.is_dir(), f"the package kubernetes-validate has no schemas of Kubernetes 1.{minor}"
    group = api_version.split("/")[0].removesuffix(".k8s.io") if "/" in api_version else ""
    file = folder / "-".join(part for part in [kind.lower(), group, api_version.split("/")[-1]] if part)
    file = file.with_name(file.name + ".json")
    return inlined(json.loads(file.read_text()), definitions(folder), ()) if file.is_file() else None


@functools.cache
def definitions(folder):
    return json.loads((folder / "_definitions.json").read_text())["$defs"]


def inlined(schema, known, within):
    """The schema with its references replaced by what they refer to. A kind that contains itself is left open."""
    if isinstance(schema, list):
        return [inlined(one, known, within) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(reference := schema.get("$ref"), str):
        name = reference.split("#/$defs/")[1]
        return {} if name in within else inlined(known[name], known, (*within, name))
    return {key: inlined(value, known, within) for key, value in schema.items() if key not in ("$id", "$schema", "description")}


class Loader(yaml.CSafeLoader):
    """YAML 1.1 has a type for `=`, which here is a text like any other."""


Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)


@functools.cache
def operator(api_version, kind):
    """The schema of an operator's kind; None when no definition has it."""
    files = sorted((chart.TOOLS / "definitions").glob("*/*.yaml"))
    assert files, "no definitions: run tests/deploy/tools"
    for file in files:
        text = file.read_text()
        # Some of them are megabytes long, and only a few are asked for.
        if f"kind: {kind}\n" not in text:
            continue
        for definition in yaml.load_all(text, Loader=Loader):
            spec = definition["spec"] if definition else {}
            for version in spec.get("versions", []):
                if (f"{spec['group']}/{version['name']}", spec["names"]["kind"]) == (api_version, kind):
                    return closed(version["schema"]["openAPIV3Schema"], root=True)
    return None


def closed(schema, root=False):
    """A structural schema as JSON Schema: keys it does not name are refused, as the API server would drop them in silence."""
    if not isinstance(schema, dict):
        return schema
    made = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-") and key != "description"}
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if "properties" in schema:
        made["properties"] = {key: closed(value) for key, value in schema["properties"].items()}
        if root:
            made["properties"]["metadata"] = {"type": "object"}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            made[key] = closed(schema[key])
    # OpenAPI's own forms of what JSON Schema says otherwise; numeric formats are nothing kubeconform knows.
    made.pop("format", None)
    if made.pop("nullable", False) and "type" in made:
        made["type"] = [made["type"], "null"]
    return made


def write(folder, minor, wanted):
    """Writes the schemas of the kinds that are wanted for Kubernetes 1.`minor`; which of them nobody knows."""
    unknown = []
    for api_version, kind in sorted(wanted):
        schema = kubernetes(minor, api_version, kind) or operator(api_version, kind)
        if schema is None:
            unknown.append((api_version, kind))
            continue
        (folder / f"{kind.lower()}_{api_version.split('/')[-1]}.json").write_text(json.dumps(schema))
    return unknown
