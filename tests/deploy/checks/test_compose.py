"""The compose file: its form, its references, and that its processes take the configuration it gives them."""

import importlib.util
import json
import pathlib
import re
import tempfile
import unittest

import chart
import jsonschema
import tomli
import yaml

DEPLOY = chart.ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
FLEET = ["migrate", *chart.ROLES, "simulator"]
SERVERS = ["scylla", "kafka", "redis", "azurite", "prometheus", "grafana"]


def schema():
    package = pathlib.Path(importlib.util.find_spec("check_jsonschema").origin).parent
    return json.loads((package / "builtin_schemas/vendor/compose-spec.json").read_text())


class Compose(unittest.TestCase):
    def test_it_has_the_form_of_a_compose_file(self):
        validator = jsonschema.Draft202012Validator(schema())
        self.assertEqual([f"{error.json_path}: {error.message}" for error in validator.iter_errors(COMPOSE)], [])
        wrong = {**COMPOSE, "services": {"a": {"image": "a", "depend_on": []}}}
        self.assertFalse(validator.is_valid(wrong), "the schema takes everything")

    def test_it_starts_the_servers_and_with_its_profile_the_fleet(self):
        self.assertEqual(sorted(SERVICES), sorted(FLEET + SERVERS))
        for name, service in SERVICES.items():
            self.assertEqual(service.get("profiles"), ["fleet"] if name in FLEET else None, name)
        environment = dict(line.split("=", 1) for line in (DEPLOY / "compose/fleet.env").read_text().splitlines() if line[:1] not in ("#", ""))
        self.assertEqual(environment["COMPOSE_PROFILES"], "fleet")
        for variable in re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()):
            self.assertIn(variable, environment)
        self.assertIn(environment["SMSFLEET_SCYLLA_ADDRESS"], SERVICES)

    def test_what_it_refers_to_is_there(self):
        for name, service in SERVICES.items():
            with self.subTest(name):
                self.assertLessEqual(set(service.get("depends_on", [])), set(SERVICES))
                self.assertRegex(service["image"], r":[\w.-]+$")
                self.assertFalse(service["image"].endswith(":latest"))
                for volume in service.get("volumes", []):
                    source = volume.split(":")[0]
                    if source.startswith("."):
                        folder = (DEPLOY / source).resolve()
                        made_elsewhere = source in ("./prometheus", "./grafana") and not folder.exists()
                        self.assertTrue(folder.exists() or made_elsewhere, source)
                    else:
                        self.assertIn(source, COMPOSE["volumes"])
                if "build" in service:
                    self.assertTrue((DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file())

    def test_it_listens_on_this_machine_only_and_nothing_twice(self):
        ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
        self.assertTrue(ports and all(port.startswith("127.0.0.1:") for port in ports), ports)
        self.assertEqual(len({port.rsplit(":", 1)[0] for port in ports}), len(ports))

    def test_the_fleet_waits_for_what_it_needs(self):
        for role in chart.ROLES:
            self.assertEqual(SERVICES[role]["depends_on"]["migrate"], {"condition": "service_completed_successfully"})
            self.assertEqual(SERVICES[role]["command"], role)
        for server in ("scylla", "kafka", "redis"):
            self.assertEqual(SERVICES["migrate"]["depends_on"][server], {"condition": "service_healthy"})
            self.assertIn("healthcheck", SERVICES[server])

    def test_its_processes_take_their_configuration(self):
        program = chart.binary()
        self.assertIsNotNone(program, "no smsfleet to ask: build it (cargo build) or name one with SMSFLEET_BINARY")
        for role in ["migrate", *chart.ROLES]:
            service = SERVICES[role]
            environment = dict(service["environment"])
            mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in service["volumes"]}
            environment["SMSFLEET_CONFIG"] = str((DEPLOY / mounted[environment["SMSFLEET_CONFIG"]]).resolve())
            with tempfile.TemporaryDirectory() as folder:
                ended = chart.run(program, "--json", "check-config", env=environment, cwd=folder)
            said = json.loads(ended.stdout)
            self.assertEqual((ended.returncode, said["problems"]), (0, []), role)
            config = said["config"]
            for address in config["scylla"]["nodes"] + config["kafka"]["brokers"] + config["redis"]["nodes"]:
                self.assertIn(address.split(":")[0], SERVICES, "they are containers, not this machine")
            self.assertIn(config["accounts"]["main"]["smpp"]["host"], SERVICES)
            self.assertIn(config["data_dir"], mounted)
            self.assertIn("--source /etc/smsfleet/sample/list.csv", (DEPLOY / "compose.yaml").read_text())
            self.assertIn("/etc/smsfleet/sample/list.csv", mounted)

    def test_the_simulator_starts_as_it_is_told(self):
        program = chart.binary()
        self.assertIsNotNone(program, "no smsfleet to ask")
        command = SERVICES["simulator"]["command"].replace("0.0.0.0:2775", "127.0.0.1:0").split()
        ended = chart.run(program, *command, "--seconds", "0", env={})
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertIn("submits", json.loads(ended.stdout))

    def test_kafka_names_an_address_to_each_kind_of_client(self):
        kafka = SERVICES["kafka"]["environment"]
        advertised = dict(one.split("://") for one in kafka["KAFKA_ADVERTISED_LISTENERS"].split(","))
        inside = tomli.loads("a = " + SERVICES["gateway"]["environment"]["SMSFLEET_KAFKA__BROKERS"])["a"]
        self.assertEqual([advertised["INSIDE"]], inside)
        machine = tomli.loads((DEPLOY / "compose/smsfleet.toml").read_text())
        self.assertEqual([advertised["PLAINTEXT"]], machine["kafka"]["brokers"])
        listeners = {one.split("://")[0] for one in kafka["KAFKA_LISTENERS"].split(",")}
        self.assertEqual(listeners, set(advertised) | {kafka["KAFKA_CONTROLLER_LISTENER_NAMES"]})
        self.assertEqual({one.split(":")[0] for one in kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")}, listeners)

    def test_a_stopped_container_has_the_time_that_its_drain_needs(self):
        """As long as the chart gives: the longest of its roles."""
        chart_gives = max(chart.role_pod("minimal", role)["terminationGracePeriodSeconds"] for role in chart.ROLES)
        for role in chart.ROLES:
            self.assertGreaterEqual(int(SERVICES[role]["stop_grace_period"].removesuffix("s")), chart_gives)

    def test_prometheus_finds_every_role_where_it_listens(self):
        scraped = yaml.safe_load((DEPLOY / "compose/prometheus.yaml").read_text())["scrape_configs"]
        found = next(one for one in scraped if one["job_name"] == "smsfleet")["dns_sd_configs"][0]
        self.assertEqual(sorted(found["names"]), sorted(chart.ROLES))
        for role in chart.ROLES:
            self.assertTrue(SERVICES[role]["environment"]["SMSFLEET_SERVE__LISTEN"].endswith(f":{found['port']}"))
