"""The chart as such: it is well formed, its README is up to date, what it ships is what deploy/ has."""

import json
import unittest

import chart
import yaml


class Chart(unittest.TestCase):
    def test_lint_finds_nothing_for_any_values_file(self):
        for name, file in chart.values_files().items():
            with self.subTest(name):
                ended = chart.run(*chart.offline(), chart.tool("helm"), "lint", "--strict", "--quiet", chart.CHART, "--values", file)
                self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)

    def test_it_has_no_dependencies(self):
        self.assertNotIn("dependencies", yaml.safe_load((chart.CHART / "Chart.yaml").read_text()))
        self.assertFalse((chart.CHART / "charts").exists())

    def test_its_version_is_the_programs(self):
        line = next(line for line in (chart.ROOT / "Cargo.toml").read_text().splitlines() if line.startswith("version = "))
        said = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
        self.assertEqual([said["version"], said["appVersion"]], [line.split('"')[1]] * 2)

    def test_no_object_is_there_twice(self):
        for name in chart.values_files():
            with self.subTest(name):
                seen = [(one["apiVersion"], one["kind"], one["metadata"]["name"]) for one in chart.objects(name)]
                self.assertEqual(len(seen), len(set(seen)), sorted(one for one in seen if seen.count(one) > 1))
                self.assertTrue(all(one["metadata"]["namespace"] == chart.NAMESPACE for one in chart.objects(name)))

    def test_the_readme_is_what_helm_docs_makes_of_it(self):
        folder, copy = chart.copy_of_chart()
        with folder:
            made = ["--chart-search-root", copy, "--log-level", "warning", "--sort-values-order", "file"]
            (copy / "README.md").unlink()
            ended = chart.run(*chart.offline(), chart.tool("helm-docs"), *made)
            self.assertEqual(ended.returncode, 0, ended.stderr)
            self.assertEqual(ended.stderr, "")
            self.assertEqual((copy / "README.md").read_text(), (chart.CHART / "README.md").read_text(), "run deploy/sync")

    def test_every_value_is_explained(self):
        rows = [line.split(" | ") for line in (chart.CHART / "README.md").read_text().splitlines() if line.startswith("| ")]
        rows = [row for row in rows if len(row) == 4 and row[0] != "| Key"]
        self.assertGreater(len(rows), 100)
        self.assertEqual([row[0] for row in rows if row[3].strip(" |") == ""], [])

    def test_what_deploy_has_is_what_the_chart_ships(self):
        ended = chart.run(chart.ROOT / "deploy/sync", "--check")
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)

    def test_every_value_is_in_the_schema_and_every_name_of_the_schema_in_the_values(self):
        schema = json.loads((chart.CHART / "values.schema.json").read_text())
        values = yaml.safe_load((chart.CHART / "values.yaml").read_text())
        defaults = values["defaults"]
        compared = []

        def compare(said, allowed, path):
            if "$ref" in allowed:
                allowed = schema["$defs"][allowed["$ref"].removeprefix("#/$defs/")]
            if not isinstance(said, dict) or "properties" not in allowed:
                return
            compared.append(path)
            self.assertIs(allowed["additionalProperties"], False, path)
            known = set(allowed["properties"])
            # A role may say whatever `defaults` says.
            inherited = set(defaults) if path.count(".") == 1 and path[1:] in chart.ROLES else set()
            self.assertEqual(set(said) | inherited, known - OPTIONAL.get(path, set()), path)
            for key, value in said.items():
                compare(value, allowed["properties"][key], f"{path}.{key}")

        compare(values, schema, "")
        self.assertGreater(len(compared), 30)

    def test_the_notes_say_how_to_send_the_first_batch(self):
        folder, copy = chart.copy_of_chart()
        with folder:
            # Notes are only shown by an installation: here they are the text of an object.
            (copy / "notes").write_text((copy / "templates/NOTES.txt").read_text())
            (copy / "templates/NOTES.txt").unlink()
            (copy / "templates/notes.yaml").write_text('notes: |\n  {{- tpl (.Files.Get "notes") . | nindent 2 }}\n')
            for name, file in chart.values_files().items():
                with self.subTest(name):
                    ended = chart.template("--values", file, "--show-only", "templates/notes.yaml", chart=copy)
                    self.assertEqual(ended.returncode, 0, ended.stderr)
                    notes = yaml.safe_load(ended.stdout)["notes"]
                    self.assertIn("batch create", notes)
                    self.assertIn("Hello {{name}}", notes)
                    simulated = yaml.safe_load(file.read_text()).get("simulator", {}).get("enabled", False)
                    self.assertEqual("--account simulator" in notes, simulated)
                    gateways = [one for one in chart.of_kind(name, "Deployment") if one["metadata"]["name"].endswith("-gateway")]
                    self.assertIn(f"deploy/{gateways[0]['metadata']['name']} ", notes)


# What the schema knows and the values do not show.
OPTIONAL = {
    "": {"global"},
    ".defaults.probes.startup": {"timeoutSeconds", "successThreshold", "initialDelaySeconds"},
    ".defaults.probes.readiness": {"successThreshold", "initialDelaySeconds"},
    ".defaults.probes.liveness": {"successThreshold", "initialDelaySeconds"},
    ".gateway.autoscaling.behavior": {"scaleUp"},
}
