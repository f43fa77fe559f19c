"""A stopped pod has as long to end as the program may need: the chart's numbers against the program's own."""

import math
import re
import unittest

import chart
import tomli

# What may follow one another when a process is told to stop (src/roles/cluster/process.rs, `stop`), as (file, constant). The
# drain itself stands apart, because it is configured.
LEAVES_GROUP = ("src/adapters/kafka/member/mod.rs", "LEAVE_WITHIN")
SAYS_GOODBYE = ("src/adapters/smpp/account.rs", "FAREWELL")
LAST_SHEET = ("src/roles/cluster/process.rs", "FAREWELL")
LAST_REQUESTS = ("src/serve/listen.rs", "GRACE")
LAST_CLICKS = ("src/roles/embedded.rs", "CLICKS_WITHIN")
RANGES_BACK = ("src/prepare/worker.rs", "DRAIN_WITHIN")
RANGES_COMMIT = ("src/prepare/worker.rs", "COMMIT_WITHIN")

# For each role: how often it waits `limits.drain` at most (a deliverer for its lanes, then for its sessions; a gateway for its
# receiving sessions), and what may come besides.
BUDGETS = {
    "coordinator": (0, [LAST_SHEET, LAST_REQUESTS]),
    "prepare": (0, [RANGES_BACK, RANGES_COMMIT, LEAVES_GROUP, LAST_SHEET, LAST_REQUESTS]),
    "deliver": (2, [LEAVES_GROUP, SAYS_GOODBYE, LAST_SHEET, LAST_REQUESTS]),
    "gateway": (1, [SAYS_GOODBYE, LAST_CLICKS, LAST_SHEET, LAST_REQUESTS]),
}
# Writes that are under way when it ends: one request to the store.
REQUEST = 5.0


def constant(file, name):
    """Seconds of a constant of the program."""
    text = (chart.ROOT / file).read_text()
    found = re.findall(rf"const {name}: Duration = Duration::from_(secs|millis)\((\d+)\);", text)
    assert len(found) == 1, f"{file} has no constant {name} any more: look at what a process waits for when it stops"
    unit, number = found[0]
    return int(number) / (1000 if unit == "millis" else 1)


def needed(role, drain, request):
    times, besides = BUDGETS[role]
    return times * drain + request + sum(constant(*one) for one in besides)


def default_drain():
    reference = tomli.loads((chart.ROOT / "src/roles/reference.toml").read_text())
    return reference["limits"]["drain"]


class Drain(unittest.TestCase):
    def test_every_role_has_the_time_that_its_drain_may_take(self):
        for name in chart.values_files():
            said = tomli.loads(chart.toml_of(name))
            drain = said.get("limits", {}).get("drain", default_drain())
            request = said.get("scylla", {}).get("request_timeout", REQUEST)
            for role in chart.ROLES:
                with self.subTest(values=name, role=role):
                    spec = chart.role_pod(name, role)
                    before = sum(one.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0) for one in spec["containers"])
                    grace = spec["terminationGracePeriodSeconds"]
                    self.assertGreaterEqual(grace, before + needed(role, drain, request))

    def test_the_default_is_no_longer_than_it_has_to_be(self):
        """A node that is drained waits for it."""
        for role in chart.ROLES:
            grace = chart.role_pod("minimal", role)["terminationGracePeriodSeconds"]
            self.assertLess(grace, 5 + math.ceil(needed(role, default_drain(), REQUEST)) + 20, role)

    def test_only_who_is_called_waits_before_it_stops(self):
        """The others are called by nobody: each second before their drain is a second lost."""
        for role in chart.ROLES:
            container = chart.role_pod("minimal", role)["containers"][0]
            self.assertEqual("lifecycle" in container, role == "gateway")

    def test_the_drain_of_a_process_is_what_was_looked_at(self):
        """Whoever adds a step to a process' end looks at the budgets here."""
        text = (chart.ROOT / "src/roles/cluster/process.rs").read_text()
        body = re.search(r"pub async fn stop\(mut self\) \{(.*?)\n    \}", text, re.DOTALL).group(1)
        # Only what is awaited takes time.
        awaited = [line.strip() for line in body.splitlines() if ".await" in line]
        known = ["stop_working()", "join_all(closing)", "fleet.stop()", "finish(CLICKS_WITHIN)", "timeout(FAREWELL, ", "serving.end()"]
        self.assertEqual(len(awaited), len(known), awaited)
        for line, step in zip(awaited, known):
            self.assertIn(step, line)
        self.assertIn("provider.close(self.grace)", body)
