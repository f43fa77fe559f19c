"""The configuration that the chart makes: the program takes it, its files are where it looks, and no secret stands in it."""

import base64
import json
import pathlib
import re
import tempfile
import unittest

import chart
import tomli

# Keys of the configuration that hold secrets, as src/roles/config_load.rs has them.
SOURCE = (chart.ROOT / "src/roles/config_load.rs").read_text()
SECRETS = re.findall(r'"(\w+)"', re.search(r"const SECRETS: \[&str; \d+\] = \[(.*?)\];", SOURCE, re.DOTALL).group(1))
MOUNTED = "/etc/smsfleet/"
# What stands in every file: also a key of a storage account in its form.
SOMETHING = base64.b64encode(bytes(64)).decode() + "\n"


def leaves(table, path=()):
    """Every key of a configuration with its value."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def mounted(spec, container):
    """The paths at which a container finds files of secrets and config maps."""
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in container["volumeMounts"]:
        volume = volumes[mount["name"]]
        for item in (volume.get("secret") or volume.get("configMap") or {}).get("items", []):
            assert "subPath" not in mount, "a file that is mounted alone keeps its first content"
            yield f"{mount['mountPath']}/{item['path']}"


def settings(container):
    """The environment as the program would have it, for what is known beforehand."""
    known = {"POD_IP": "10.1.2.3"}
    for variable in container.get("env", []):
        known[variable["name"]] = variable.get("value", known.get(variable["name"], "something"))
    return {name: value.replace("$(POD_IP)", known["POD_IP"]) for name, value in known.items()}


class Config(unittest.TestCase):
    def test_the_program_takes_the_configuration_of_every_values_file(self):
        program = self.program()
        for name in chart.values_files():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                toml = chart.toml_of(name)
                # Nobody may write to /etc here: the paths are moved, and what is mounted there is made.
                for path, value in leaves(tomli.loads(toml)):
                    if isinstance(value, str) and value.startswith(MOUNTED):
                        file = pathlib.Path(folder) / value.removeprefix(MOUNTED)
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.write_text(SOMETHING)
                file = pathlib.Path(folder) / "config" / "smsfleet.toml"
                file.parent.mkdir(exist_ok=True)
                file.write_text(toml.replace(MOUNTED, f"{folder}/"))
                for role in chart.ROLES:
                    environment = settings(chart.role_pod(name, role)["containers"][0]) | {"SMSFLEET_CONFIG": str(file)}
                    if "::" in chart.rendered(name) and "[$(POD_IP)]" in chart.rendered(name):
                        environment["SMSFLEET_SERVE__LISTEN"] = environment["SMSFLEET_SERVE__LISTEN"].replace("10.1.2.3", "2001:db8::3")
                    ended = chart.run(program, "--json", "check-config", env=environment, cwd=folder)
                    said = json.loads(ended.stdout)
                    self.assertEqual((ended.returncode, said["problems"]), (0, []), role)
                    self.assertTrue(said["config"]["serve"]["listen"], role)
                    self.assertEqual(said["config"]["data_dir"], "/var/lib/smsfleet")

    def test_the_program_refuses_a_wrong_key_here_too(self):
        """Else the check above could not fail."""
        program = self.program()
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "smsfleet.toml"
            file.write_text(chart.toml_of("minimal").replace("topic_prefix", "topics_prefix"))
            ended = chart.run(program, "--json", "check-config", file, env={}, cwd=folder)
            self.assertNotEqual(ended.returncode, 0)
            self.assertEqual(json.loads(ended.stdout)["problems"][0]["key"], "kafka.topics_prefix")

    def test_what_is_said_arrives(self):
        said = tomli.loads(chart.toml_of("full"))
        account = said["accounts"]["main"]
        self.assertEqual((account["rate"], account["price"], account["smpp"]["tls"]["on"]), (3000, 0.045, True))
        self.assertEqual(said["batch"]["signature"], "【Acme】")
        self.assertEqual(said["accounts"]["main"]["smpp"]["vendor_status"], {"0x00000401": "throttled"})
        self.assertIs(type(account["rate"]), int)
        self.assertEqual(said["limits"]["drain"], 20.5)
        tls = tomli.loads(chart.toml_of("tls-sasl"))
        self.assertEqual(tls["kafka"]["mechanism"], "SCRAM-SHA-256")
        self.assertIs(tls["scylla"]["tls"]["verify_host"], False)
        self.assertEqual(tomli.loads(chart.toml_of("sentinel-login"))["redis"]["sentinel_username"], "watcher")

    def test_every_file_it_names_is_mounted_in_every_pod_that_reads_it(self):
        found = 0
        for name in chart.values_files():
            for owner, labels, spec in chart.pods(name):
                if labels["app.kubernetes.io/component"] == "simulator":
                    continue
                for container in chart.containers(spec):
                    with self.subTest(values=name, pod=owner, container=container["name"]):
                        there = set(mounted(spec, container))
                        self.assertIn(settings(container)["SMSFLEET_CONFIG"], there)
                        for path, value in leaves(tomli.loads(chart.toml_of(name))):
                            if isinstance(value, str) and value.startswith(MOUNTED):
                                found += 1
                                self.assertIn(value, there, ".".join(path))
                        self.assertTrue(all(mount.get("readOnly") for mount in container["volumeMounts"] if mount["mountPath"].startswith(MOUNTED)))
        self.assertGreater(found, 50)

    def test_no_secret_is_in_it(self):
        self.assertIn("password", SECRETS)
        for name in chart.values_files():
            for path, value in leaves(tomli.loads(chart.toml_of(name))):
                self.assertNotIn(path[-1], SECRETS, f"{name}: {'.'.join(path)}")
            self.assertEqual(chart.of_kind(name, "Secret"), [])

    def test_the_chart_knows_every_key_that_holds_a_secret(self):
        guard = (chart.CHART / "templates/_guards.tpl").read_text()
        for key in SECRETS:
            self.assertIn(f'"{key}"', guard)

    def test_a_changed_configuration_is_a_new_version_of_the_pods(self):
        def sums(*arguments):
            ended = chart.template("--values", chart.values_files()["minimal"], *arguments)
            self.assertEqual(ended.returncode, 0, ended.stderr)
            made = [one for one in chart.parse(ended.stdout) if one["kind"] == "Deployment"]
            return {one["metadata"]["name"]: one["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for one in made}

        before, after, same = sums(), sums("--set", "config.limits.drain=10"), sums("--set", "coordinator.replicas=3")
        self.assertEqual(len(before), 4)
        self.assertEqual(before, same)
        self.assertTrue(all(before[name] != after[name] for name in before))

    def test_the_migration_reads_what_the_roles_read(self):
        for name in chart.values_files():
            if chart.of_kind(name, "Job"):
                self.assertEqual(chart.toml_of(name, "-migrate"), chart.toml_of(name))

    def program(self):
        program = chart.binary()
        if program is None:
            self.fail("no smsfleet to ask: build it (cargo build) or name one with SMSFLEET_BINARY")
        return program
