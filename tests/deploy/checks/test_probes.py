"""The probes, asked of the program: each role is started as its container is, with the chart's own configuration, but with servers
that are away. It lives, says what it waits for, serves metrics, and ends when it is told to."""

import contextlib
import http.client
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import unittest

import chart
from test_config import settings
from test_helm_test import free_port, wait_for


def ask(port, path):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read().decode()


class Probes(unittest.TestCase):
    def setUp(self):
        self.program = chart.binary()
        self.assertIsNotNone(self.program, "no smsfleet to ask: build it (cargo build) or name one with SMSFLEET_BINARY")

    def test_a_role_that_waits_for_its_servers_lives_and_is_not_ready(self):
        closed = free_port()
        for role in chart.ROLES:
            with self.subTest(role), tempfile.TemporaryDirectory() as name:
                folder, port = pathlib.Path(name), free_port()
                container = chart.role_pod("minimal", role)["containers"][0]
                toml = re.sub(r'"[\w.-]+\.example:\d+"', f'"127.0.0.1:{closed}"', chart.toml_of("minimal"))
                self.assertEqual(toml.count(f":{closed}"), 3)
                (folder / "smsfleet.toml").write_text(toml.replace("/var/lib/smsfleet", str(folder / "data")))
                listen = f"127.0.0.1:{port}"
                environment = settings(container) | {"SMSFLEET_CONFIG": str(folder / "smsfleet.toml"), "SMSFLEET_SERVE__LISTEN": listen}
                with open(folder / "log", "w") as log:
                    process = subprocess.Popen([self.program, *container["args"]], cwd=folder, env=environment, stdout=log, stderr=log)
                try:
                    wait_for(port, process)
                    self.assertEqual(ask(port, container["startupProbe"]["httpGet"]["path"])[0], 200)
                    self.assertEqual(ask(port, container["livenessProbe"]["httpGet"]["path"])[0], 200)
                    status, _, why = ask(port, container["readinessProbe"]["httpGet"]["path"])
                    self.assertEqual(status, 503, why)
                    status, kind, text = ask(port, "/metrics")
                    # Prometheus 3 refuses what says no type.
                    self.assertTrue(status == 200 and kind.startswith("text/plain; version=") and "smsfleet_build_info" in text)
                    began = time.monotonic()
                    process.send_signal(signal.SIGTERM)
                    self.assertEqual(process.wait(timeout=60), 0, (folder / "log").read_text())
                    grace = chart.role_pod("minimal", role)["terminationGracePeriodSeconds"]
                    self.assertLess(time.monotonic() - began, grace)
                finally:
                    process.kill()
                    process.wait()

    def test_every_container_runs_a_command_that_there_is(self):
        seen = set()
        for name in chart.values_files():
            for owner, _, spec in chart.pods(name):
                for container in chart.containers(spec):
                    words = [word for word in container["args"][:2] if word.isidentifier() or "-" in word and not word.startswith("-")]
                    words = words[: 2 if words[0] == "batch" else 1]
                    if tuple(words) not in seen:
                        seen.add(tuple(words))
                        ended = chart.run(self.program, *words, "--help", env={})
                        self.assertEqual(ended.returncode, 0, f"{name}, {owner}: {words}: {ended.stderr}")
        self.assertGreaterEqual(len(seen), 8, seen)
