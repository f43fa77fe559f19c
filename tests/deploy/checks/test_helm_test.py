"""What `helm test` does, done here: its own commands, one after another, against a fleet and the chart's own simulator. The fleet
is one process over a folder, as there is no cluster; commands, list, account and simulator are those the chart makes."""

import contextlib
import hashlib
import json
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time
import unittest

import chart
import tomli

SAMPLE = "/etc/smsfleet/sample/list.csv"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def started(folder, name, *command):
    """A process that runs, and is told to stop at the end."""
    with open(folder / f"{name}.log", "w") as log:
        process = subprocess.Popen([str(part) for part in command], cwd=folder, stdout=log, stderr=log, env={})
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=40)


def wait_for(port, process):
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens at {port}")


class HelmTest(unittest.TestCase):
    def pod(self, name="try"):
        return chart.named(name, "Pod", "-test")

    def test_it_knows_the_batch_that_the_program_makes(self):
        for name in ("try", "full"):
            pod = self.pod(name)
            key = pod["metadata"]["annotations"]["smsfleet/test-key"]
            tenant = tomli.loads(chart.toml_of(name)).get("batch", {}).get("tenant", "default")
            fields = [tenant.encode(), key.encode()]
            digest = hashlib.sha256(b"".join(len(field).to_bytes(8, "big") + field for field in fields)).hexdigest()
            steps = {one["name"]: one["args"] for one in chart.containers(pod["spec"])}
            self.assertEqual(list(steps), ["fleet", "create", "watch", "report"])
            self.assertIn(key, steps["create"])
            self.assertEqual(steps["report"], ["report", digest[:32]])
            self.assertEqual(steps["watch"][2], digest[:32])

    def test_without_a_simulator_it_sends_nothing(self):
        steps = [one["args"] for one in chart.containers(self.pod("minimal")["spec"])]
        self.assertEqual(steps, [["fleet"]])

    def test_the_simulator_starts_as_it_is_told(self):
        program = chart.binary()
        self.assertIsNotNone(program, "no smsfleet to ask: build it (cargo build) or name one with SMSFLEET_BINARY")
        for name in ("try", "full"):
            arguments = chart.role_pod(name, "simulator")["containers"][0]["args"]
            arguments = [re.sub(r"smpp_listen=.*", "smpp_listen=127.0.0.1:0", part) for part in arguments]
            ended = chart.run(program, *arguments, "--seconds", "0", env={})
            self.assertEqual(ended.returncode, 0, ended.stderr)
            self.assertIn("submits", json.loads(ended.stdout))

    def test_its_commands_send_the_batch_and_judge_it(self):
        program = chart.binary()
        self.assertIsNotNone(program, "no smsfleet to ask: build it (cargo build) or name one with SMSFLEET_BINARY")
        smpp, http = free_port(), free_port()
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "list.csv").write_text(chart.named("try", "ConfigMap", "-sample")["data"]["list.csv"])
            account = tomli.loads(chart.toml_of("try"))["accounts"]["simulator"]
            account["smpp"] |= {"host": "127.0.0.1", "port": smpp}
            lines = [f"rate = {account['rate']}", "[accounts.simulator.smpp]"]
            lines += [f"{key} = {json.dumps(value)}" for key, value in account["smpp"].items()]
            text = [f'data_dir = "{folder}/data"', "[serve]", f'listen = "127.0.0.1:{http}"', "[accounts.simulator]", *lines]
            (folder / "smsfleet.toml").write_text("\n".join(text) + "\n")
            simulator = chart.role_pod("try", "simulator")["containers"][0]["args"]
            simulator = [part.replace("0.0.0.0:2775", f"127.0.0.1:{smpp}") for part in simulator]
            with started(folder, "simulator", program, *simulator) as one:
                wait_for(smpp, one)
                with started(folder, "fleet", program, "all") as fleet:
                    wait_for(http, fleet)
                    for step in chart.containers(self.pod()["spec"]):
                        arguments = [part.replace(SAMPLE, str(folder / "list.csv")) for part in step["args"]]
                        ended = chart.run(program, *arguments, cwd=folder, env={}, timeout=120)
                        self.assertEqual(ended.returncode, 0, f"{step['name']}: {ended.stdout}{ended.stderr}")
                    report = json.loads(chart.run(program, "--json", *arguments, cwd=folder, env={}).stdout)
                    people = (folder / "list.csv").read_text().strip().splitlines()[1:]
                    self.assertEqual(report["settlement"]["outcomes"]["accepted"], len(people), report)
                    self.assertEqual(report["settlement"]["deliveries"]["delivered"], len(people), report)
                    unknown = chart.run(program, "report", "f" * 32, cwd=folder, env={})
                    self.assertNotEqual(unknown.returncode, 0, "a batch that is not there is reported")
            received = (folder / "simulator.log").read_text()
            self.assertIn(f'"accepted_segments": {len(people)}', received)
