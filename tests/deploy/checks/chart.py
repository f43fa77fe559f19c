"""The chart as the checks see it: its files, and what Helm makes of them."""

import functools
import os
import pathlib
import shutil
import subprocess
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
CHART = ROOT / "helm" / "smsfleet"
TOOLS = pathlib.Path(os.environ["SMSFLEET_DEPLOY_TOOLS"])
RELEASE, NAMESPACE = "rel", "sms"
ROLES = ["coordinator", "prepare", "deliver", "gateway"]


def tool(name):
    """A tool that tests/deploy/tools installed."""
    return str(TOOLS / "bin" / name)


@functools.cache
def offline():
    """What a command is run behind so that it reaches no network, where the machine lets us."""
    for way in (["unshare", "-n"], ["unshare", "-rn"]):
        if shutil.which("unshare") and subprocess.run([*way, "true"], capture_output=True).returncode == 0:
            return way
    return []


def run(*command, **options):
    """Runs a command; what it printed and how it ended."""
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


def values_files():
    """The values files of helm/smsfleet/ci, by name."""
    files = {file.name.removesuffix("-values.yaml"): file for file in sorted((CHART / "ci").glob("*-values.yaml"))}
    assert len(files) >= 6, files
    return files


def template(*arguments, chart=CHART):
    """`helm template`, ended as it may."""
    return run(*offline(), tool("helm"), "template", RELEASE, chart, "--namespace", NAMESPACE, *arguments)


@functools.cache
def rendered(name):
    """What Helm makes of a values file of ci/, as text."""
    ended = template("--values", values_files()[name])
    assert ended.returncode == 0, f"{name}: {ended.stderr}"
    return ended.stdout


@functools.cache
def objects(name):
    """The same as objects."""
    return parse(rendered(name))


def parse(text):
    return [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]


def of_kind(name, kind):
    return [one for one in objects(name) if one["kind"] == kind]


def named(name, kind, ending):
    """The one object of a kind whose name ends so."""
    found = [one for one in of_kind(name, kind) if one["metadata"]["name"].endswith(ending)]
    assert len(found) == 1, f"{name}: {kind} …{ending}: {[one['metadata']['name'] for one in found]}"
    return found[0]


def pods(name):
    """Every pod there can be, as (owner's name, labels, spec)."""
    for one in objects(name):
        owner = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield owner, one["metadata"]["labels"], one["spec"]
        elif one["kind"] in ("Deployment", "Job"):
            yield owner, one["spec"]["template"]["metadata"]["labels"], one["spec"]["template"]["spec"]


def role_pod(name, role):
    """The pod of a role."""
    found = [spec for _, labels, spec in pods(name) if labels["app.kubernetes.io/component"] == role]
    assert len(found) == 1, f"{name}: {role}"
    return found[0]


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


def toml_of(name, ending="-config"):
    """The configuration that a values file gives, as text."""
    return named(name, "ConfigMap", ending)["data"]["smsfleet.toml"]


def binary():
    """The program: $SMSFLEET_BINARY, else what `cargo build` made; None when there is none."""
    for path in (os.environ.get("SMSFLEET_BINARY"), ROOT / "target/debug/smsfleet", ROOT / "target/release/smsfleet"):
        if path and pathlib.Path(path).is_file():
            return pathlib.Path(path).resolve()
    return None


def copy_of_chart():
    """A copy that a check may change."""
    folder = tempfile.TemporaryDirectory()
    shutil.copytree(CHART, pathlib.Path(folder.name) / "smsfleet")
    return folder, pathlib.Path(folder.name) / "smsfleet"
