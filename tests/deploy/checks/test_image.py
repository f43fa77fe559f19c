"""The image: its recipe is linted, and where buildah is installed it is followed, with stand-ins for what would be downloaded
and compiled, so that its layout can be looked at. Neither an engine nor a network is needed."""

import io
import json
import os
import pathlib
import re
import shutil
import sys
import tarfile
import tempfile
import unittest

import chart

DOCKERFILE = chart.ROOT / "deploy/Dockerfile"
# Stands for the toolchain: it brings a program that is built already, and says what the real one says of the packages.
CARGO = """#!/bin/bash
[ -f Cargo.toml ] && [ -f Cargo.lock ] || { echo "no manifest" >&2; exit 1; }
case $1 in
  build) [ -f src/main.rs ] && mkdir -p target/release && cp /standin/smsfleet target/release/smsfleet ;;
  metadata) cat /standin/metadata.json ;;
  *) exit 1 ;;
esac
"""
RUSTC = "#!/bin/bash\necho 'rustc 1.95.0'\necho 'host: x86_64-unknown-linux-gnu'\n"


def metadata():
    """What cargo says of the packages of this repository; it reads, and compiles nothing."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"]
    ended = chart.run(*command, cwd=chart.ROOT)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


class Recipe(unittest.TestCase):
    def test_hadolint_finds_nothing(self):
        ended = chart.run(*chart.offline(), chart.TOOLS / "venv/bin/hadolint", "--no-color", DOCKERFILE)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)

    def test_bases_are_pinned_and_the_version_is_the_programs(self):
        text = DOCKERFILE.read_text()
        bases = re.findall(r"^ARG (?:BUILD|RUN)_IMAGE=(\S+)$", text, re.MULTILINE)
        self.assertEqual(len(bases), 2)
        self.assertFalse([base for base in bases if ":" not in base or base.endswith(":latest")])
        manifest = (chart.ROOT / "Cargo.toml").read_text()
        rust = re.search(r'^rust-version = "([^"]+)"', manifest, re.MULTILINE).group(1)
        self.assertIn(f"rust:{rust}.", bases[0])
        version = re.search(r'^version = "([^"]+)"', manifest, re.MULTILINE).group(1)
        self.assertIn(f"ARG VERSION={version}\n", text)

    def test_dependencies_are_built_before_the_sources_are_there(self):
        text = DOCKERFILE.read_text()
        steps = [text.index(step) for step in ("COPY Cargo.toml Cargo.lock", "cargo build", "COPY src src", "SMSFLEET_COMMIT=")]
        self.assertEqual(steps, sorted(steps))

    def test_only_what_it_is_built_from_is_sent_to_the_builder(self):
        lines = [line for line in (chart.ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
        self.assertEqual(lines[0], "*")
        allowed = {line.removeprefix("!") for line in lines[1:]}
        copied = {part for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text(), re.MULTILINE) for part in line.split()}
        self.assertEqual(allowed, copied)

    def test_the_bill_of_materials_names_what_is_linked_and_nothing_of_the_tests(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "metadata.json"
            file.write_text(metadata())
            command = [sys.executable, chart.ROOT / "deploy/sbom", file, chart.ROOT / "Cargo.lock"]
            one, again = (chart.run(*command) for _ in range(2))
        self.assertEqual((one.returncode, one.stderr), (0, ""))
        self.assertEqual(one.stdout, again.stdout)
        self.check_bill(json.loads(one.stdout))

    def check_bill(self, bill):
        self.assertEqual((bill["bomFormat"], bill["specVersion"]), ("CycloneDX", "1.6"))
        names = {one["name"] for one in bill["components"]}
        self.assertLessEqual({"tokio", "rdkafka", "rdkafka-sys", "openssl-src", "scylla"}, names)
        self.assertFalse({"proptest", "rcgen", "fpe"} & names, "packages of tests are not in the image")
        self.assertTrue(all(one["hashes"][0]["content"] and one["licenses"] for one in bill["components"]))
        references = {one["bom-ref"] for one in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
        self.assertEqual(len(references), len(bill["components"]) + 1)
        self.assertTrue(all(set(one["dependsOn"]) <= references for one in bill["dependencies"]))


class Layout(unittest.TestCase):
    """The real recipe, followed by buildah."""

    @classmethod
    def setUpClass(cls):
        if shutil.which("buildah") is None or os.getuid() != 0:
            print("\nbuildah is not installed, or this is not root: the image's layout is left out", file=sys.stderr)
            raise unittest.SkipTest("the image's layout needs buildah and root")
        cls.folder = tempfile.TemporaryDirectory()
        try:
            cls.config, cls.files = build(pathlib.Path(cls.folder.name))
        except BaseException:
            cls.folder.cleanup()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_it_runs_as_a_user_without_rights_and_hears_sigterm(self):
        self.assertEqual(self.config["User"], "65532:65532")
        self.assertEqual(self.config["Entrypoint"], ["/usr/local/bin/smsfleet"])
        self.assertEqual(self.config["WorkingDir"], "/var/lib/smsfleet")
        self.assertEqual(list(self.config["ExposedPorts"]), ["8080/tcp"])
        self.assertEqual(self.config["StopSignal"], "SIGTERM")

    def test_its_labels_say_what_it_is(self):
        labels = self.config["Labels"]
        version = re.search(r'^version = "([^"]+)"', (chart.ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)
        self.assertEqual(labels["org.opencontainers.image.version"], version)
        self.assertEqual(labels["org.opencontainers.image.revision"], "0123456789ab")
        self.assertIn(labels["smsfleet.sbom"].removeprefix("/"), self.files)

    def test_it_holds_the_program_its_papers_and_a_folder_to_write_to_and_nothing_else(self):
        files = {name: entry for name, (entry, _) in self.files.items() if not entry.isdir()}
        self.assertEqual(sorted(files), ["usr/local/bin/smsfleet", "usr/share/smsfleet/LICENSE", "usr/share/smsfleet/sbom.cdx.json"])
        self.assertTrue(all(entry.uid == 0 and not entry.mode & 0o022 for entry in files.values()), "the program could change them")
        self.assertEqual(files["usr/local/bin/smsfleet"].mode & 0o777, 0o755)
        data = self.files["var/lib/smsfleet"][0]
        self.assertEqual((data.uid, data.gid), (65532, 65532))

    def test_the_bill_of_materials_is_in_it(self):
        Recipe.check_bill(self, json.loads(self.files["usr/share/smsfleet/sbom.cdx.json"][1]))

    def test_the_user_of_the_chart_is_the_users_of_the_image(self):
        for role in chart.ROLES:
            security = chart.role_pod("minimal", role)["securityContext"]
            self.assertEqual(f"{security['runAsUser']}:{security['runAsGroup']}", self.config["User"])
            mounts = {mount["mountPath"] for mount in chart.role_pod("minimal", role)["containers"][0]["volumeMounts"]}
            self.assertIn(self.config["WorkingDir"], mounts)


def build(folder):
    """Builds the image over stand-ins; its configuration, and its files by name as (entry, content of small ones)."""
    store = ["--root", folder / "store", "--runroot", folder / "run", "--storage-driver", "vfs"]
    policy = folder / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

    def buildah(*arguments):
        ended = chart.run(*chart.offline(), "buildah", *store, *arguments)
        assert ended.returncode == 0, f"buildah {arguments[0]}: {ended.stdout[-2000:]}{ended.stderr[-2000:]}"
        return ended.stdout

    # The toolchain's stand-in sees this machine's own tools, read-only.
    tools = folder / "tools"
    (tools / "standin/bin").mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        if pathlib.Path("/", name).is_symlink():
            (tools / name).symlink_to(os.readlink(f"/{name}"))
    (tools / "usr").mkdir()
    (tools / "tmp").mkdir()
    for name, text in (("cargo", CARGO), ("rustc", RUSTC), ("python3", f'#!/bin/bash\nexec {sys.base_prefix}/bin/python3 "$@"\n')):
        (tools / "standin/bin" / name).write_text(text)
        (tools / "standin/bin" / name).chmod(0o755)
    (tools / "standin/metadata.json").write_text(metadata())
    (tools / "standin/smsfleet").write_bytes(pathlib.Path("/bin/true").read_bytes())
    (tools / "standin/smsfleet").chmod(0o755)
    (folder / "Toolchain").write_text("FROM scratch\nCOPY tools/ /\nENV PATH=/standin/bin:/usr/bin:/bin\n")
    (folder / "Base").write_text("FROM scratch\nLABEL base=empty\n")
    common = ["bud", "--isolation", "chroot", "--signature-policy", policy, "--pull-never", "--layers=false"]
    buildah(*common, "-t", "localhost/toolchain", "-f", folder / "Toolchain", folder)
    buildah(*common, "-t", "localhost/base", "-f", folder / "Base", folder)
    shared = ["--volume", "/usr:/usr:ro"]
    if not sys.base_prefix.startswith("/usr"):
        shared += ["--volume", f"{sys.base_prefix}:{sys.base_prefix}:ro"]
    arguments = ["BUILD_IMAGE=localhost/toolchain", "RUN_IMAGE=localhost/base", "COMMIT=0123456789ab"]
    given = [part for one in arguments for part in ("--build-arg", one)]
    buildah(*common, *shared, *given, "-t", "localhost/smsfleet", "-f", DOCKERFILE, chart.ROOT)
    buildah("push", "--signature-policy", policy, "localhost/smsfleet", f"oci:{folder}/image:smsfleet")
    return read(folder / "image")


def read(image):
    """The configuration and the files of an image in the OCI layout."""

    def blob(digest):
        return (image / "blobs" / digest.replace(":", "/")).read_bytes()

    index = json.loads((image / "index.json").read_text())
    manifest = json.loads(blob(index["manifests"][0]["digest"]))
    files = {}
    for layer in manifest["layers"]:
        with tarfile.open(fileobj=io.BytesIO(blob(layer["digest"]))) as tar:
            for entry in tar:
                content = tar.extractfile(entry).read() if entry.isfile() and entry.size < 1 << 20 else b""
                files[entry.name.strip("/")] = (entry, content)
    return json.loads(blob(manifest["config"]["digest"]))["config"], files
