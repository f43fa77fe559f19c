"""What one object says of another is true: selectors, ports, names of config maps, secrets and accounts, targets of autoscalers."""

import re
import unittest

import chart
import tomli


def matches(selector, labels):
    """Whether labels fit a selector."""
    for one in selector.get("matchExpressions", []):
        value = labels.get(one["key"])
        if one["operator"] == "In" and value not in one["values"]:
            return False
        if one["operator"] not in ("In",):
            raise AssertionError(f"this check does not know {one['operator']}")
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def found(name, selector):
    """The components whose pods a selector finds."""
    return sorted({labels["app.kubernetes.io/component"] for _, labels, _ in chart.pods(name) if matches(selector, labels)})


def ports_of(spec):
    return {port["name"]: port["containerPort"] for container in chart.containers(spec) for port in container.get("ports", [])}


class Wiring(unittest.TestCase):
    # The object that is looked at, for the message of a failure.
    at = None

    def _formatMessage(self, msg, standardMsg):
        said = super()._formatMessage(msg, standardMsg)
        return f"{self.at}: {said}" if self.at else said

    def each(self, kind, least):
        """Every object of a kind in every values file; at least so many, or the check proves nothing."""
        seen = 0
        for name in chart.values_files():
            for one in chart.of_kind(name, kind):
                seen += 1
                self.at = f"{name}: {kind}/{one['metadata']['name']}"
                yield name, one
        self.at = None
        self.assertGreaterEqual(seen, least, kind)

    def test_a_deployment_finds_its_own_pods_and_no_others(self):
        for name, one in self.each("Deployment", 30):
            component = one["metadata"]["labels"]["app.kubernetes.io/component"]
            self.assertEqual(found(name, one["spec"]["selector"]), [component])
            # Selectors cannot be changed later, so nothing in them may change with a version.
            self.assertEqual(
                set(one["spec"]["selector"]["matchLabels"]),
                {f"app.kubernetes.io/{part}" for part in ("name", "instance", "component")},
            )

    def test_a_budget_finds_one_role_and_lets_a_node_be_drained(self):
        for name, one in self.each("PodDisruptionBudget", 24):
            self.assertEqual(found(name, one["spec"]["selector"]), [one["metadata"]["labels"]["app.kubernetes.io/component"]])
            self.assertNotIn(one["spec"]["maxUnavailable"], (0, "0%"))

    def test_a_service_finds_pods_that_have_its_ports(self):
        for name, one in self.each("Service", 9):
            selector = {"matchLabels": one["spec"]["selector"]}
            roles = found(name, selector)
            component = one["metadata"]["labels"]["app.kubernetes.io/component"]
            self.assertEqual(roles, sorted(chart.ROLES) if component == "metrics" else [component])
            for port in one["spec"]["ports"]:
                for role in roles:
                    self.assertIn(port["targetPort"], ports_of(chart.role_pod(name, role)))

    def test_an_ingress_leads_to_a_port_of_its_service_and_shows_no_metrics(self):
        for name, one in self.each("Ingress", 1):
            for rule in one["spec"]["rules"]:
                for path in rule["http"]["paths"]:
                    backend = path["backend"]["service"]
                    service = chart.named(name, "Service", backend["name"])
                    self.assertIn(backend["port"]["name"], [port["name"] for port in service["spec"]["ports"]])
                    self.assertNotIn(path["path"], ("/", "/metrics"))

    def test_pods_use_accounts_config_maps_and_volumes_that_are_there(self):
        for name in chart.values_files():
            maps = {one["metadata"]["name"]: one for one in chart.of_kind(name, "ConfigMap")}
            accounts = {one["metadata"]["name"] for one in chart.of_kind(name, "ServiceAccount")}
            for owner, _, spec in chart.pods(name):
                with self.subTest(values=name, pod=owner):
                    self.assertIn(spec["serviceAccountName"], accounts | ({"default"} if not accounts else set()))
                    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
                    used = {mount["name"] for container in chart.containers(spec) for mount in container.get("volumeMounts", [])}
                    self.assertEqual(used, set(volumes))
                    for volume in volumes.values():
                        wanted = volume.get("configMap")
                        if wanted and wanted["name"].startswith(("rel-", "sms-")):
                            self.assertIn(wanted["name"], maps)
                            for item in wanted.get("items", []):
                                self.assertIn(item["key"], maps[wanted["name"]]["data"])

    def test_secrets_that_external_secrets_make_have_the_keys_that_are_used(self):
        for name, one in self.each("ExternalSecret", 2):
            made = {entry["secretKey"] for entry in one["spec"]["data"]}
            used = set()
            for _, _, spec in chart.pods(name):
                for volume in spec.get("volumes", []):
                    if volume.get("secret", {}).get("secretName") == one["spec"]["target"]["name"]:
                        used |= {item["key"] for item in volume["secret"]["items"]}
            self.assertEqual(made, used)

    def test_keda_proves_who_it_is_by_things_that_are_there(self):
        for name, one in self.each("TriggerAuthentication", 2):
            mounted = {
                (volume["secret"]["secretName"], item["key"])
                for _, _, spec in chart.pods(name)
                for volume in spec.get("volumes", [])
                if "secret" in volume
                for item in volume["secret"]["items"]
            }
            for target in one["spec"].get("secretTargetRef", []):
                self.assertIn((target["name"], target["key"]), mounted, "the fleet itself uses another one")
            kafka = tomli.loads(chart.toml_of(name))["kafka"]
            parameters = {target["parameter"] for key in ("secretTargetRef", "configMapTargetRef") for target in one["spec"].get(key, [])}
            wanted = {"password": "password_file", "ca": "ca_file", "cert": "certificate", "key": "key", "keyPassword": "key_password_file", "username": "username"}
            self.assertEqual(parameters, {parameter for parameter, key in wanted.items() if key in kafka})
            for target in one["spec"].get("configMapTargetRef", []):
                if target["parameter"] == "username":
                    data = chart.named(name, "ConfigMap", target["name"])["data"]
                    self.assertEqual(data[target["key"]], kafka["username"])

    def test_autoscalers_lead_to_deployments_without_a_number_of_their_own(self):
        for name in chart.values_files():
            scaled = {}
            for kind in ("ScaledObject", "HorizontalPodAutoscaler"):
                for one in chart.of_kind(name, kind):
                    target = one["spec"]["scaleTargetRef"]
                    self.assertEqual(target["kind"], "Deployment")
                    self.assertNotIn(target["name"], scaled, "scaled twice")
                    scaled[target["name"]] = kind
            for one in chart.of_kind(name, "Deployment"):
                with self.subTest(values=name, deployment=one["metadata"]["name"]):
                    self.assertEqual("replicas" in one["spec"], one["metadata"]["name"] not in scaled)
            self.assertLessEqual(set(scaled), {one["metadata"]["name"] for one in chart.of_kind(name, "Deployment")})

    def test_what_watches_finds_all_roles_and_nothing_else(self):
        for name, one in self.each("PodMonitor", 5):
            self.assertEqual(found(name, one["spec"]["selector"]), sorted(chart.ROLES))
            for endpoint in one["spec"]["podMetricsEndpoints"]:
                for role in chart.ROLES:
                    self.assertIn(endpoint["port"], ports_of(chart.role_pod(name, role)))
                    probe = chart.role_pod(name, role)["containers"][0]["readinessProbe"]["httpGet"]
                    self.assertEqual(endpoint["scheme"].upper(), probe["scheme"])
        for name, one in self.each("ServiceMonitor", 1):
            services = [service for service in chart.of_kind(name, "Service") if matches(one["spec"]["selector"], service["metadata"]["labels"])]
            self.assertEqual([service["metadata"]["name"] for service in services], ["rel-smsfleet-metrics"])
            self.assertEqual(found(name, {"matchLabels": services[0]["spec"]["selector"]}), sorted(chart.ROLES))

    def test_probes_ask_where_the_role_listens_what_the_program_answers(self):
        served = (chart.ROOT / "src/serve/health.rs").read_text()
        for name in chart.values_files():
            tls = "tls" in tomli.loads(chart.toml_of(name)).get("serve", {})
            for role in chart.ROLES:
                with self.subTest(values=name, role=role):
                    container = chart.role_pod(name, role)["containers"][0]
                    port = {one["name"]: one["containerPort"] for one in container["ports"]}["http"]
                    listen = next(one["value"] for one in container["env"] if one["name"] == "SMSFLEET_SERVE__LISTEN")
                    self.assertTrue(listen.endswith(f":{port}"), listen)
                    self.assertFalse(listen.startswith("127."), "nobody would reach it")
                    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
                        asked = container[probe]["httpGet"]
                        self.assertEqual((asked["path"], asked["port"], asked["scheme"]), (path, "http", "HTTPS" if tls else "HTTP"))
                        self.assertIn(f'.route("{path}"', served)

    def test_pods_of_a_role_are_spread_version_by_version(self):
        spread = 0
        for name in chart.values_files():
            for role in chart.ROLES:
                for one in chart.role_pod(name, role).get("topologySpreadConstraints", []):
                    spread += 1
                    self.assertEqual(found(name, one["labelSelector"]), [role])
                    self.assertEqual(one["matchLabelKeys"], ["pod-template-hash"])
        self.assertGreater(spread, 40)

    def test_two_coordinators_and_a_gateway_that_stays(self):
        self.assertEqual(chart.named("minimal", "Deployment", "-coordinator")["spec"]["replicas"], 2)
        self.assertGreaterEqual(chart.named("minimal", "HorizontalPodAutoscaler", "-gateway")["spec"]["minReplicas"], 2)

    def test_a_role_says_only_what_is_different_about_it(self):
        def spread(role):
            return [one["topologyKey"] for one in chart.role_pod("full", role)["topologySpreadConstraints"]]

        self.assertEqual(spread("coordinator"), ["kubernetes.io/hostname"])
        self.assertEqual(spread("deliver"), ["topology.kubernetes.io/zone", "kubernetes.io/hostname"])
        self.assertEqual(chart.named("full", "PodDisruptionBudget", "-prepare")["spec"]["maxUnavailable"], "25%")
        self.assertEqual(chart.named("full", "PodDisruptionBudget", "-deliver")["spec"]["maxUnavailable"], 1)
        for role in chart.ROLES:
            spec = chart.role_pod("full", role)
            self.assertEqual(spec["priorityClassName"], "important")
            self.assertEqual(spec["tolerations"][0]["key"], "dedicated")
            names = [mount["name"] for mount in spec["containers"][0]["volumeMounts"]]
            self.assertEqual("lists" in names, role == "prepare")
        # What a role switches off is off, though `defaults` has it on.
        given = ["--set", "deliver.podDisruptionBudget.enabled=false,deliver.topologySpread.enabled=false,deliver.preStopSeconds=3"]
        ended = chart.template("--values", chart.values_files()["minimal"], *given)
        made = chart.parse(ended.stdout)
        budgets = [one["metadata"]["name"] for one in made if one["kind"] == "PodDisruptionBudget"]
        self.assertEqual([name.rsplit("-", 1)[1] for name in budgets], ["coordinator", "prepare", "gateway"])
        (deliver,) = [one for one in made if one["kind"] == "Deployment" and one["metadata"]["name"].endswith("-deliver")]
        spec = deliver["spec"]["template"]["spec"]
        self.assertNotIn("topologySpreadConstraints", spec)
        before = chart.role_pod("minimal", "deliver")["terminationGracePeriodSeconds"]
        self.assertEqual(spec["terminationGracePeriodSeconds"], before + 3)

    def test_the_migration_is_there_before_whoever_needs_it(self):
        for name, one in self.each("Job", 7):
            weights = {}
            for other in chart.objects(name):
                notes = other["metadata"].get("annotations", {})
                if "pre-install" in notes.get("helm.sh/hook", ""):
                    self.assertEqual(notes["helm.sh/hook"], "pre-install,pre-upgrade")
                    weights[(other["kind"], other["metadata"]["name"])] = int(notes["helm.sh/hook-weight"])
            own = weights.pop(("Job", one["metadata"]["name"]))
            spec = one["spec"]["template"]["spec"]
            needed = {("ConfigMap", volume["configMap"]["name"]) for volume in spec["volumes"] if volume["name"] == "config"}
            if spec["serviceAccountName"] != "default":
                needed.add(("ServiceAccount", spec["serviceAccountName"]))
            needed |= {("ExternalSecret", other["metadata"]["name"]) for other in chart.of_kind(name, "ExternalSecret")}
            self.assertLessEqual(needed, set(weights), "it would wait for what is made behind it")
            self.assertTrue(all(weight < own for weight in weights.values()), weights)

    def test_names_stay_short_enough_with_a_long_release(self):
        long = "r" * 53
        ended = chart.run(*chart.offline(), chart.tool("helm"), "template", long, chart.CHART, "--values", chart.values_files()["try"])
        self.assertEqual(ended.returncode, 0, ended.stderr)
        for one in chart.parse(ended.stdout):
            self.assertRegex(one["metadata"]["name"], re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"))
