"""The autoscalers ask the right questions, and what they come to is what was meant: read with KEDA's own language of formulas."""

import math
import re
import unittest

import chart
import tomli
import yaml

# What KEDA 2.20 knows of a Kafka trigger and of a Prometheus trigger: it ignores a key that it does not know, in silence.
KAFKA_KEYS = {
    "bootstrapServers", "consumerGroup", "topic", "lagThreshold", "activationLagThreshold", "offsetResetPolicy",
    "limitToPartitionsWithLag", "version", "tls", "sasl",
}
PROMETHEUS_KEYS = {"serverAddress", "query", "threshold", "ignoreNullValues"}


def formula(text, **values):
    """What a formula gives, with the library that KEDA uses."""
    ended = chart.run(chart.tool("formula"), text, *[f"{name}={value}" for name, value in values.items()])
    assert ended.returncode == 0, ended.stderr
    return float(ended.stdout)


def lag_metric(lag, threshold):
    """What KEDA's Kafka trigger reports for tokens by partition with limitToPartitionsWithLag: the sum, but at most the threshold
    for each partition in which something waits."""
    total, waiting = sum(lag), sum(1 for tokens in lag if tokens > 0)
    return waiting * threshold if total // threshold > waiting else total


def triggers(one):
    return {trigger["name"]: trigger for trigger in one["spec"]["triggers"]}


class Scaling(unittest.TestCase):
    def scaled(self, name, role):
        return chart.named(name, "ScaledObject", f"-{role}")

    def wanted(self, one, lag, routes):
        """Pods that the autoscaler wants for tokens by partition and segments a second that routes can take."""
        spec = one["spec"]
        trigger = triggers(one)["lag"]["metadata"]
        metric = lag_metric(lag, int(trigger["lagThreshold"]))
        modifiers = spec["advanced"].get("scalingModifiers")
        if modifiers:
            value = formula(modifiers["formula"], lag=metric, routes=routes)
            active = value > float(modifiers["activationTarget"])
            pods = math.ceil(value / float(modifiers["target"]))
        else:
            active = metric > int(trigger["activationLagThreshold"])
            pods = math.ceil(metric / int(trigger["lagThreshold"]))
        least = spec["minReplicaCount"]
        if least == 0 and active:
            least = 1
        return max(least, min(pods, spec["maxReplicaCount"]))

    def test_deliverers_follow_the_smaller_of_lag_and_routes(self):
        one = self.scaled("minimal", "deliver")
        for lag, routes, pods in [
            ([], 100_000, 1),
            ([1] * 128, 1_000_000, 16),
            ([10] * 128, 1_000_000, 115),
            ([100] * 128, 1_000_000, 115),
            # Routes that take 10,000 segments a second keep five pods busy, however much waits.
            ([100] * 128, 10_000, 5),
            ([100] * 128, 500, 1),
            # Every account is outside its hours, or no pod reaches it yet: one waits for it.
            ([100] * 128, 0, 1),
            # One stuck partition is work for one.
            ([1_000] + [0] * 127, 1_000_000, 1),
            ([1_000, 1_000, 1_000] + [0] * 125, 1_000_000, 3),
        ]:
            with self.subTest(waiting=sum(lag), routes=routes):
                self.assertEqual(self.wanted(one, lag, routes), pods)

    def test_a_values_file_of_ones_own_changes_the_formula(self):
        one = self.scaled("full", "deliver")
        self.assertEqual(self.wanted(one, [2] * 128, 1_000_000), 64)
        self.assertEqual(self.wanted(one, [2] * 128, 15_000), 10)
        self.assertEqual(self.wanted(one, [], 15_000), 2)

    def test_without_prometheus_lag_alone_decides_and_nothing_runs_when_nothing_waits(self):
        one = self.scaled("scale-to-zero", "deliver")
        self.assertNotIn("scalingModifiers", one["spec"]["advanced"])
        self.assertEqual(self.wanted(one, [0] * 128, 0), 0)
        self.assertEqual(self.wanted(one, [1] + [0] * 127, 0), 1)
        # Ten bind slots are all the account has.
        self.assertEqual(self.wanted(one, [100] * 128, 0), 10)

    def test_preparers_follow_their_lag(self):
        one = self.scaled("minimal", "prepare")
        self.assertEqual(self.wanted(one, [0] * 16, 0), 1)
        self.assertEqual(self.wanted(one, [1] * 16, 0), 8)
        self.assertEqual(self.wanted(one, [5] * 16, 0), 14)
        self.assertEqual(self.wanted(self.scaled("scale-to-zero", "prepare"), [0] * 16, 0), 0)

    def test_triggers_ask_for_what_the_fleet_reads(self):
        seen = 0
        for name in chart.values_files():
            kafka = tomli.loads(chart.toml_of(name))["kafka"]
            for one in chart.of_kind(name, "ScaledObject"):
                seen += 1
                with self.subTest(values=name, object=one["metadata"]["name"]):
                    topic = "delivery" if one["metadata"]["name"].endswith("-deliver") else "prepare"
                    lag = triggers(one)["lag"]
                    self.assertEqual(lag["type"], "kafka")
                    said = lag["metadata"]
                    self.assertLessEqual(set(said), KAFKA_KEYS)
                    self.assertTrue(all(isinstance(value, str) for value in said.values()))
                    self.assertEqual(said["bootstrapServers"], ",".join(kafka["brokers"]))
                    # Groups are named like the topic they read (src/adapters/kafka/topics.rs).
                    self.assertEqual([said["topic"], said["consumerGroup"]], [f"{kafka['topic_prefix']}.{topic}"] * 2)
                    self.assertEqual((said["offsetResetPolicy"], said["limitToPartitionsWithLag"]), ("earliest", "true"))
                    self.assertEqual(said.get("tls"), "enable" if kafka["security"].endswith("ssl") else None)
                    names = {"PLAIN": "plaintext", "SCRAM-SHA-256": "scram_sha256", "SCRAM-SHA-512": "scram_sha512"}
                    self.assertEqual(said.get("sasl"), names.get(kafka.get("mechanism")))
                    secured = any(key in kafka for key in ("mechanism", "ca_file", "certificate"))
                    self.assertEqual("authenticationRef" in lag, secured)
                    if secured:
                        chart.named(name, "TriggerAuthentication", lag["authenticationRef"]["name"])
                    if routes := triggers(one).get("routes"):
                        self.assertEqual(set(routes["metadata"]), PROMETHEUS_KEYS)
                        # Else a query without an answer would count as a capacity of nothing.
                        self.assertEqual(routes["metadata"]["ignoreNullValues"], "false")
                        self.assertIn(f'namespace="{chart.NAMESPACE}"', routes["metadata"]["query"])
        self.assertGreaterEqual(seen, 10)

    def test_the_consumer_begins_where_the_trigger_counts_from(self):
        text = "\n".join(file.read_text() for file in sorted((chart.ROOT / "src/adapters/kafka").rglob("*.rs")))
        self.assertEqual(set(re.findall(r'"auto\.offset\.reset", "(\w+)"', text)), {"earliest"})

    def test_limits_and_patience(self):
        for name in chart.values_files():
            for one in chart.of_kind(name, "ScaledObject"):
                with self.subTest(values=name, object=one["metadata"]["name"]):
                    spec = one["spec"]
                    partitions = 128 if one["metadata"]["name"].endswith("-deliver") else tomli.loads(chart.toml_of(name))["kafka"]["prepare_partitions"]
                    self.assertLessEqual(spec["maxReplicaCount"], partitions)
                    self.assertLessEqual(spec["minReplicaCount"], spec["maxReplicaCount"])
                    # KEDA takes a fallback with a formula only when the target is a whole number.
                    if modifiers := spec["advanced"].get("scalingModifiers"):
                        self.assertGreater(int(modifiers["target"]), 0)
                    self.assertEqual(spec["fallback"]["behavior"], "currentReplicasIfHigher")
                    self.assertGreater(spec["fallback"]["replicas"], 0)
                    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
                    self.assertGreaterEqual(behavior["scaleDown"]["stabilizationWindowSeconds"], 300)
                    # Each step moves partitions: no more than one a minute.
                    periods = [policy["periodSeconds"] for way in behavior.values() for policy in way["policies"]]
                    self.assertGreaterEqual(min(periods), 60)
        self.assertEqual(self.scaled("minimal", "deliver")["spec"]["minReplicaCount"], 1)
        self.assertEqual(self.scaled("minimal", "deliver")["spec"]["maxReplicaCount"], 115)

    def test_the_metrics_it_asks_for_are_metrics_of_the_fleet(self):
        registry = re.findall(r'= "(smsfleet_[a-z_]+)", [A-Z][A-Za-z]+', (chart.ROOT / "src/runtime/metrics.rs").read_text())
        self.assertGreater(len(registry), 30)
        readme = (chart.CHART / "README.md").read_text()
        values = yaml.safe_load((chart.CHART / "values.yaml").read_text())
        own = {values[role]["autoscaling"]["externalMetric"] for role in ("prepare", "deliver")}
        asked = set(re.findall(r"smsfleet_[a-z_]+", readme + values["deliver"]["autoscaling"]["routesQuery"]))
        self.assertGreater(len(asked), 3)
        self.assertEqual(asked - own - set(registry), set())

    def test_without_keda_the_autoscaler_of_kubernetes_asks_for_what_the_readme_says_to_serve(self):
        readme = (chart.CHART / "README.md").read_text()
        values = yaml.safe_load((chart.CHART / "values.yaml").read_text())
        for role in ("prepare", "deliver"):
            one = chart.named("no-keda", "HorizontalPodAutoscaler", f"-{role}")
            metric = one["spec"]["metrics"][0]["external"]
            self.assertIn(f"name: {{as: {metric['metric']['name']}}}", readme)
            self.assertEqual(metric["target"], {"type": "AverageValue", "averageValue": "1"})
            self.assertIn(f"/ {values[role]['autoscaling']['tokensPerWorker']}", readme)
        self.assertIn(f"/ {values['deliver']['autoscaling']['segmentsPerWorker']}", readme)
        self.assertEqual(chart.of_kind("no-keda", "ScaledObject"), [])
        self.assertEqual(chart.named("no-keda", "HorizontalPodAutoscaler", "-deliver")["spec"]["maxReplicas"], 64)

    def test_the_gateway_follows_the_processor(self):
        one = chart.named("full", "HorizontalPodAutoscaler", "-gateway")["spec"]
        self.assertEqual(one["metrics"], [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}])
        self.assertEqual((one["minReplicas"], one["maxReplicas"]), (3, 20))
        for name in chart.values_files():
            self.assertFalse([other for other in chart.of_kind(name, "ScaledObject") if other["metadata"]["name"].endswith("-gateway")])
