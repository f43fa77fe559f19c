"""Each role reaches what its configuration names and nothing more; nobody calls who need not be called."""

import unittest
import urllib.parse

import chart
import tomli
from test_wiring import matches


def port_of(address):
    return int(address.rsplit(":", 1)[1])


def port_of_url(url):
    parts = urllib.parse.urlsplit(url)
    return parts.port or {"http": 80, "https": 443}[parts.scheme]


def servers(config):
    return {port_of(one) for one in config["kafka"]["brokers"] + config["scylla"]["nodes"] + config["redis"]["nodes"]}


def providers(config):
    """Ports of the accounts, the simulator apart, which is a pod of the release."""
    ports = set()
    for name, account in config.get("accounts", {}).items():
        if name == "simulator":
            continue
        if account.get("protocol") == "http":
            ports.add(port_of_url(account["http"]["url"]))
        else:
            ports.add(account.get("smpp", {}).get("port", 2775))
    return ports


def others(config):
    urls = [store["endpoint"] for store in config.get("object_stores", {}).values() if store.get("endpoint")]
    urls += [config["trace"]["endpoint"]] if "trace" in config else []
    return {443} | {port_of_url(url) for url in urls}


def reached(policy, ports=None):
    """Ports that a policy lets traffic out to; by name where they are named."""
    return {port["port"] for rule in policy["spec"]["egress"] for port in rule.get("ports", [])}


class Network(unittest.TestCase):
    def policies(self):
        seen = 0
        for name in chart.values_files():
            if not chart.of_kind(name, "NetworkPolicy"):
                continue
            seen += 1
            yield name, {one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in chart.of_kind(name, "NetworkPolicy")}
        self.assertGreater(seen, 5)

    def test_every_pod_is_under_exactly_one_policy_for_both_ways(self):
        for name, policies in self.policies():
            for owner, labels, _ in chart.pods(name):
                with self.subTest(values=name, pod=owner):
                    above = [one for one in policies.values() if matches(one["spec"]["podSelector"], labels)]
                    self.assertEqual(len(above), 1)
                    self.assertEqual(sorted(above[0]["spec"]["policyTypes"]), ["Egress", "Ingress"])

    def test_each_role_reaches_what_it_needs_and_nothing_more(self):
        for name, policies in self.policies():
            config = tomli.loads(chart.toml_of(name))
            base = {53} | servers(config)
            if config["redis"].get("mode") == "sentinel":
                base.add(6379)
            simulated = {"smpp"} if "simulator" in config.get("accounts", {}) else set()
            extra = {8443} if name == "full" else set()
            wanted = {
                "coordinator": base | others(config) | extra,
                "prepare": base | others(config) | extra,
                "deliver": base | others(config) | extra | providers(config) | simulated,
                "gateway": base | others(config) | extra | providers(config) | simulated,
                "migrate": base,
                "test": base,
            }
            for role, policy in policies.items():
                with self.subTest(values=name, role=role):
                    self.assertEqual(reached(policy), wanted.get(role, set()))

    def test_only_the_gateway_and_the_simulator_are_called(self):
        for name, policies in self.policies():
            for role, policy in policies.items():
                with self.subTest(values=name, role=role):
                    rules = policy["spec"].get("ingress", [])
                    if role in ("migrate", "test"):
                        self.assertEqual(rules, [])
                    elif role == "gateway":
                        self.assertEqual(len(rules), 2)
                    else:
                        self.assertEqual(len(rules), 1)
                        self.assertTrue(rules[0]["from"], "without peers everybody may")
                    for rule in rules:
                        self.assertEqual([port["port"] for port in rule["ports"]], ["smpp" if role == "simulator" else "http"])

    def test_the_simulator_is_reached_by_who_sends_and_calls_nobody(self):
        policy = chart.named("try", "NetworkPolicy", "-simulator")["spec"]
        self.assertEqual(policy["egress"], [])
        peers = [peer["podSelector"] for peer in policy["ingress"][0]["from"]]
        allowed = {labels["app.kubernetes.io/component"] for peer in peers for _, labels, _ in chart.pods("try") if matches(peer, labels)}
        self.assertEqual(allowed, {"deliver", "gateway"})
        account = tomli.loads(chart.toml_of("try"))["accounts"]["simulator"]["smpp"]
        service = chart.named("try", "Service", account["host"])
        self.assertEqual(service["spec"]["ports"][0]["port"], account["port"])
