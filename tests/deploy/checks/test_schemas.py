"""Every object the chart makes is what Kubernetes, KEDA, the Prometheus operator and External Secrets take, to the last key."""

import pathlib
import tempfile
import unittest

import chart
import schemas

# The lowest that Chart.yaml allows, and the newest there is.
MINORS = [30, 37]


def conform(texts, minor):
    """What kubeconform says about objects, as (exit code, output)."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "schemas").mkdir()
        wanted = {(one["apiVersion"], one["kind"]) for text in texts.values() for one in chart.parse(text)}
        unknown = schemas.write(folder / "schemas", minor, wanted)
        assert not unknown, f"Kubernetes 1.{minor} and the operators have no {unknown}"
        for name, text in texts.items():
            (folder / f"{name}.yaml").write_text(text)
        location = folder / "schemas" / "{{ .ResourceKind }}_{{ .ResourceAPIVersion }}.json"
        files = [folder / f"{name}.yaml" for name in texts]
        ended = chart.run(*chart.offline(), chart.tool("kubeconform"), "-strict", "-summary", "-schema-location", location, *files)
        return ended.returncode, ended.stdout + ended.stderr


class Schemas(unittest.TestCase):
    def test_every_object_of_every_values_file(self):
        texts = {name: chart.rendered(name) for name in chart.values_files()}
        kinds = {one["kind"] for name in texts for one in chart.objects(name)}
        for kind in ["ScaledObject", "TriggerAuthentication", "PodMonitor", "ServiceMonitor", "ExternalSecret", "HorizontalPodAutoscaler"]:
            self.assertIn(kind, kinds, "no values file of ci/ makes one")
        for minor in MINORS:
            with self.subTest(kubernetes=f"1.{minor}"):
                code, said = conform(texts, minor)
                self.assertEqual(code, 0, said)
                self.assertIn("Invalid: 0, Errors: 0, Skipped: 0", said)

    def test_wrong_objects_are_found(self):
        for name, old, new in [
            ("full", "minReplicaCount:", "minReplicas:"),
            ("full", "limitToPartitionsWithLag: \"true\"", "limitToPartitionsWithLag: true"),
            ("full", "unhealthyPodEvictionPolicy:", "unhealthyPodPolicy:"),
            ("full", "podMetricsEndpoints:", "podMetricEndpoints:"),
            ("minimal", "maxUnavailable: 1", "maxUnavailable: [1]"),
            ("tls-sasl", "refreshInterval:", "refreshEvery:"),
            ("no-keda", "averageValue: \"1\"", "average: \"1\""),
        ]:
            with self.subTest(new):
                text = chart.rendered(name)
                self.assertIn(old, text)
                code, said = conform({name: text.replace(old, new)}, MINORS[-1])
                self.assertNotEqual(code, 0, said)

    def test_every_pod_is_restricted(self):
        """The Pod Security Standard `restricted`, and what goes beyond it."""
        for name in chart.values_files():
            for owner, _, spec in chart.pods(name):
                with self.subTest(values=name, pod=owner):
                    self.assertIs(spec["automountServiceAccountToken"], False)
                    self.assertIs(spec["enableServiceLinks"], False)
                    security = spec["securityContext"]
                    self.assertTrue(security["runAsNonRoot"] and security["runAsUser"] == 65532 == security["fsGroup"])
                    self.assertEqual(security["seccompProfile"], {"type": "RuntimeDefault"})
                    self.assertFalse({"hostNetwork", "hostPID", "hostIPC"} & set(spec))
                    self.assertTrue(all("hostPath" not in volume for volume in spec.get("volumes", [])))
                    for container in chart.containers(spec):
                        security = container["securityContext"]
                        self.assertIs(security["allowPrivilegeEscalation"], False)
                        self.assertIs(security["readOnlyRootFilesystem"], True)
                        self.assertEqual(security["capabilities"], {"drop": ["ALL"]})
                        self.assertIn("memory", container["resources"]["limits"])
                        self.assertTrue({"cpu", "memory"} <= set(container["resources"]["requests"]))
                        self.assertNotIn("command", container, "the image's own program runs, and there is no shell")
            for one in chart.of_kind(name, "ServiceAccount"):
                self.assertIs(one["automountServiceAccountToken"], False)
