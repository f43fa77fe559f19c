"""Values that must not be installed are refused, each with a message that says which and why."""

import pathlib
import tempfile
import unittest

import chart
import yaml

CASES = yaml.safe_load((pathlib.Path(__file__).parent / "refused.yaml").read_text())


class Refused(unittest.TestCase):
    def test_each_is_refused_for_its_own_reason(self):
        self.assertGreater(len(CASES), 30)
        minimal = chart.values_files()["minimal"]
        with tempfile.TemporaryDirectory() as folder:
            for case in CASES:
                with self.subTest(case["why"]):
                    file = pathlib.Path(folder) / "values.yaml"
                    file.write_text(yaml.safe_dump(case["values"]))
                    ended = chart.template("--values", minimal, "--values", file)
                    self.assertNotEqual(ended.returncode, 0, "it was taken")
                    self.assertIn(case["says"], ended.stderr)

    def test_kubernetes_older_than_needed_is_refused(self):
        ended = chart.template("--values", chart.values_files()["minimal"], "--kube-version", "1.29.0")
        self.assertNotEqual(ended.returncode, 0)
        self.assertIn("requires kubeVersion: >=1.30.0-0", ended.stderr)
