"""The queries that scaling rests on, asked of Prometheus' own test tool: the deliverers' query for routes, and the rules that the
chart's README gives to Prometheus Adapter where there is no KEDA."""

import json
import os
import pathlib
import sys
import tempfile
import textwrap
import unittest

import chart
import yaml

VALUES = yaml.safe_load((chart.CHART / "values.yaml").read_text())


def promtool():
    """$SMSFLEET_PROMTOOL, else what tests/observe built; None when there is none."""
    for path in (os.environ.get("SMSFLEET_PROMTOOL"), chart.ROOT / "target/observe-tools/promtool"):
        if path and pathlib.Path(path).is_file():
            return pathlib.Path(path).resolve()
    return None


def adapter_rules():
    """The rules of the README, as recording rules for namespace `sms`."""
    readme = (chart.CHART / "README.md").read_text()
    block = readme[readme.index("    rules:\n      external:") :]
    block = yaml.safe_load(textwrap.dedent(block[: block.index("\n## ")]))
    rules = block["rules"]["external"]
    return {rule["name"]["as"]: rule["metricsQuery"].replace("<<.LabelMatchers>>", 'namespace="sms"') for rule in rules}


def series(name, **labels):
    value = labels.pop("value")
    return {"series": f"{name}{{{','.join(f'{key}={json.dumps(said)}' for key, said in labels.items())}}}", "values": f"{value}x10"}


# Two accounts that take 10,000 segments a second together, as the leader says and nobody else; another fleet's; 1,280 tokens that
# wait; and a fleet without accounts.
SERIES = [
    series("smsfleet_coordinate_leading", namespace="empty", pod="d", value=1),
    series("smsfleet_coordinate_leading", namespace="sms", pod="a", value=1),
    series("smsfleet_coordinate_leading", namespace="sms", pod="b", value=0),
    series("smsfleet_queue_lag_tokens", queue="delivery", namespace="sms", pod="a", value=1280),
    series("smsfleet_queue_lag_tokens", queue="delivery", namespace="sms", pod="b", value=0),
    series("smsfleet_queue_lag_tokens", queue="prepare", namespace="sms", pod="a", value=10),
    *[
        series("smsfleet_rates_capacity_segments_per_second", account=account, namespace=namespace, pod=pod, value=value)
        for account, namespace, pod, value in [
            ("main", "sms", "a", 8000),
            ("main", "sms", "b", 0),
            ("web", "sms", "a", 2000),
            ("web", "sms", "b", 0),
            ("main", "other", "c", 9000),
        ]
    ],
]


class Queries(unittest.TestCase):
    def test_they_come_to_what_they_are_meant_to(self):
        tool = promtool()
        if tool is None:
            print("\npromtool is not there (tests/observe builds it): the queries of scaling are not asked", file=sys.stderr)
            self.skipTest("needs promtool")
        query = VALUES["deliver"]["autoscaling"]["routesQuery"]
        rules = adapter_rules() | {
            "routes": query.replace("{{ .namespace }}", "sms"),
            "routes_without_accounts": query.replace("{{ .namespace }}", "empty"),
            # Prometheus reads nobody there: no answer, which is not the same as a capacity of nothing.
            "routes_of_nobody": query.replace("{{ .namespace }}", "nobody"),
        }
        tokens = {role: VALUES[role]["autoscaling"]["tokensPerWorker"] for role in ("prepare", "deliver")}
        segments = VALUES["deliver"]["autoscaling"]["segmentsPerWorker"]
        expected = {
            VALUES["deliver"]["autoscaling"]["externalMetric"]: min(1280 / tokens["deliver"], 10_000 / segments),
            VALUES["prepare"]["autoscaling"]["externalMetric"]: 10 / tokens["prepare"],
            "routes": 10_000,
            "routes_without_accounts": 0,
            "routes_of_nobody": None,
        }
        self.assertEqual(set(expected), set(rules))
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            group = {"name": "scaling", "rules": [{"record": record, "expr": text} for record, text in rules.items()]}
            (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [group]}))
            asked = [
                {"expr": record, "eval_time": "5m", "exp_samples": [] if value is None else [{"labels": record, "value": value}]}
                for record, value in expected.items()
            ]
            case = {"interval": "1m", "input_series": SERIES, "promql_expr_test": asked}
            (folder / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": [case]}))
            ended = chart.run(*chart.offline(), tool, "test", "rules", folder / "test.yaml")
            self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
