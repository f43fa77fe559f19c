"""Rules and dashboards arrive as they are kept in deploy/, letter by letter, and what the scraper is told is what they ask by."""

import json
import unittest

import chart
import yaml

RULES = """groups:
  - name: smsfleet
    rules:
      - alert: Lost
        expr: smsfleet_statistics_conservation_difference != 0
        annotations:
          summary: 'Of {{ $labels.namespace }} {{ $value }} records are not accounted for'
"""
BOARD = {"title": "Fleet", "panels": [{"legend": "{{account}} {{ $x }}"}], "templating": {"list": []}}


class Monitoring(unittest.TestCase):
    def made(self, *arguments, rules=RULES):
        """The objects of a chart that ships these rules and one dashboard."""
        folder, copy = chart.copy_of_chart()
        with folder:
            files = copy / "files"
            (files / "dashboards").mkdir(exist_ok=True)
            for file in (files / "dashboards").glob("*.json"):
                file.unlink()
            (files / "rules.yaml").write_text(rules)
            (files / "dashboards/The_Fleet.json").write_text(json.dumps(BOARD, indent=2))
            ended = chart.template("--values", chart.values_files()["minimal"], *arguments, chart=copy)
            self.assertEqual(ended.returncode, 0, ended.stderr)
            return chart.parse(ended.stdout)

    def of_kind(self, made, kind, ending=""):
        return [one for one in made if one["kind"] == kind and one["metadata"]["name"].endswith(ending)]

    def test_rules_arrive_letter_by_letter(self):
        made = self.made("--set", "monitoring.rules.labels.release=monitoring")
        (one,) = self.of_kind(made, "PrometheusRule")
        self.assertEqual(one["spec"], yaml.safe_load(RULES))
        self.assertEqual(one["metadata"]["labels"]["release"], "monitoring")

    def test_dashboards_arrive_letter_by_letter_where_the_sidecar_finds_them(self):
        (one,) = self.of_kind(self.made(), "ConfigMap", "-dashboard-the-fleet")
        self.assertEqual(json.loads(one["data"]["The_Fleet.json"]), BOARD)
        self.assertEqual(one["metadata"]["labels"]["grafana_dashboard"], "1")
        self.assertEqual(one["metadata"]["annotations"], {"grafana_folder": "smsfleet"})

    def test_alerts_and_panels_lead_to_the_runbook_and_grafana_of_ones_own(self):
        book, grafana = "https://wiki.example/sms/RUNBOOK.md", "https://grafana.example/"
        ended = chart.template("--values", chart.values_files()["minimal"], "--set", f"monitoring.runbookUrl={book},monitoring.grafanaUrl={grafana}")
        self.assertEqual(ended.returncode, 0, ended.stderr)
        made = chart.parse(ended.stdout)
        (rules,) = self.of_kind(made, "PrometheusRule")
        alerts = [rule for group in rules["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
        self.assertGreater(len(alerts), 10)
        for alert in alerts:
            said = alert["annotations"]
            self.assertEqual(said["runbook_url"], f"{book}#{alert['alert'].lower()}")
            self.assertRegex(said["dashboard_url"], r"^https://grafana\.example/d/smsfleet-\w+\?viewPanel=\d+$")
            self.assertNotIn("dashboard_path", said)
        boards = [json.loads(text) for one in self.of_kind(made, "ConfigMap") for name, text in one["data"].items() if name.endswith(".json")]
        self.assertEqual(len(boards), 6)
        for board in boards:
            (variable,) = [one for one in board["templating"]["list"] if one["name"] == "runbook"]
            self.assertEqual((variable["query"], variable["current"]), (book, {"text": book, "value": book}))

    def test_both_can_be_left_out(self):
        made = self.made("--set", "monitoring.rules.enabled=false,monitoring.dashboards.enabled=false")
        self.assertEqual(self.of_kind(made, "PrometheusRule") + self.of_kind(made, "ConfigMap", "-the-fleet"), [])
        self.assertEqual(self.of_kind(self.made(rules=""), "PrometheusRule"), [], "rules without a text")

    def test_what_deploy_has_is_installed(self):
        """Whatever is there now, in the values file that leaves all on."""
        rules = chart.ROOT / "deploy/prometheus/rules.yaml"
        shipped = [one["spec"] for one in chart.of_kind("full", "PrometheusRule")]
        self.assertEqual(shipped, [yaml.safe_load(rules.read_text())] if rules.is_file() else [])
        kept = {file.name: json.loads(file.read_text()) for file in (chart.ROOT / "deploy/grafana").glob("*.json")}
        maps = [one["data"] for one in chart.of_kind("full", "ConfigMap") if "-dashboard-" in one["metadata"]["name"]]
        self.assertEqual({name: json.loads(text) for data in maps for name, text in data.items()}, kept)
        # The API server takes no object beyond a megabyte.
        self.assertTrue(all(len(text) < 900_000 for data in maps for text in data.values()))

    def test_every_series_says_its_role_and_one_job(self):
        for name, kind, key in (("minimal", "PodMonitor", "podMetricsEndpoints"), ("scale-to-zero", "ServiceMonitor", "endpoints")):
            (one,) = chart.of_kind(name, kind)
            for endpoint in one["spec"][key]:
                labels = {rule["targetLabel"]: rule for rule in endpoint["relabelings"]}
                self.assertEqual(labels["job"]["replacement"], "smsfleet")
                self.assertEqual(labels["role"]["sourceLabels"], ["__meta_kubernetes_pod_label_app_kubernetes_io_component"])
                self.assertEqual(labels["instance"]["sourceLabels"], ["__meta_kubernetes_pod_name"])
                self.assertEqual(endpoint["path"], "/metrics")
