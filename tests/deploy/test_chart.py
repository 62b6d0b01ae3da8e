"""The chart renders, refuses what is wrong, and configures the program rightly."""

import copy
import os
import re
import subprocess
import tempfile
import unittest
from functools import cache
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

import schema
from chart import (
    CHART,
    KUBERNETES,
    RINGBACK,
    ROOT,
    VALUES,
    component,
    container,
    helm,
    objects,
    one,
    pod,
    rendered,
    template,
    variables,
    workloads,
)


class Rendering(unittest.TestCase):
    def test_lint_finds_nothing(self):
        for values in VALUES:
            with self.subTest(values):
                done = helm("lint", "--strict", str(CHART), values=values)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_kubernetes_takes_every_object(self):
        looked_at = 0
        for version in KUBERNETES:
            for values in VALUES:
                for each in rendered(values, kubernetes=version):
                    if custom(each):
                        continue
                    with self.subTest(version=version, values=values, kind=each["kind"]):
                        kubernetes_validate.validate(each, version, strict=True)
                        looked_at += 1
        self.assertGreater(looked_at, 100)

    def test_older_kubernetes_is_refused(self):
        done = template(kubernetes="1.29")
        self.assertIn("incompatible with Kubernetes", done.stderr)

    def test_objects_of_operators_are_as_their_definitions_say(self):
        folder = os.environ.get("CRDS")
        if not folder:
            # No package registry has them; the kit for tests does.
            self.skipTest("no CustomResourceDefinitions here (CRDS)")
        known = definitions(Path(folder))
        seen = set()
        for values in VALUES:
            for each in filter(custom, objects(values)):
                with self.subTest(values, kind=each["kind"]):
                    jsonschema.validate(each, known[each["apiVersion"], each["kind"]])
                    seen.add(each["kind"])
        wanted = "HTTPRoute PodMonitor PrometheusRule ScaledObject ServiceMonitor TriggerAuthentication"
        self.assertEqual(sorted(seen), wanted.split())

    def test_without_the_operators_definitions_none_of_its_objects_is_made(self):
        kinds = {each["kind"] for each in rendered(crds=False)}
        self.assertFalse(kinds & {"PodMonitor", "PrometheusRule"})

    def test_version_is_the_programs(self):
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        self.assertEqual(chart["appVersion"], version)

    def test_names_are_unique_and_short(self):
        for values in VALUES:
            names = [(each["kind"], each["metadata"]["name"]) for each in objects(values)]
            self.assertEqual(len(names), len(set(names)))
            self.assertLessEqual(max(len(name) for _, name in names), 63)


def custom(each):
    """Whether it is of a kind that Kubernetes itself does not have."""
    group = each["apiVersion"].split("/")[0]
    return "." in group and not group.endswith(".k8s.io") or group.startswith("gateway.")


def definitions(folder):
    """Schemas by apiVersion and kind, which refuse unknown fields."""
    known = {}
    for path in folder.glob("*.yaml"):
        for definition in filter(None, yaml.safe_load_all(path.read_text())):
            spec = definition["spec"]
            for version in spec["versions"]:
                rules = copy.deepcopy(version["schema"]["openAPIV3Schema"])
                strict(rules)
                rules["properties"]["metadata"] = {"type": "object"}
                known[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = rules
    return known


def strict(rules):
    if isinstance(rules, dict):
        if "properties" in rules and not rules.get("x-kubernetes-preserve-unknown-fields"):
            rules.setdefault("additionalProperties", False)
        if rules.pop("x-kubernetes-int-or-string", False):
            rules.pop("type", None)
        if rules.pop("nullable", False) and "type" in rules:
            rules["type"] = [rules["type"], "null"]
        # Not every format is one of jsonschema's, nor every pattern (flags inside) Python's.
        rules.pop("format", None)
        if "(?" in str(rules.get("pattern", "")):
            del rules["pattern"]
        for below in rules.values():
            strict(below)
    elif isinstance(rules, list):
        for below in rules:
            strict(below)


class Refusals(unittest.TestCase):
    def test_schema_refuses(self):
        for over, words in [
            ({"replicaCount": 2}, "replicaCount"),
            ({"kafka": {"bootstrap": "kafka"}}, "bootstrap"),
            ({"kafka": {"bootstrap": ["kafka:9092"]}}, "bootstrap"),
            ({"kafka": {"securityProtocol": "tls"}}, "sasl_plaintext"),
            ({"kafka": {"credentials": {"mechanism": "gssapi"}}}, "scram-sha-512"),
            ({"kafka": {"credentials": {"password": "x"}}}, "password"),
            ({"secrets": {"operatorToken": "rbo_secret"}}, "operatorToken"),
            ({"secrets": {"keys": {"ids": []}}}, "ids"),
            ({"secrets": {"keys": {"ids": ["K1"]}}}, "ids"),
            ({"config": {"telemetry": {"listen": "0.0.0.0:1"}}}, "listen"),
            ({"config": {"log": {"engine": "local"}}}, "log"),
            ({"config": {"admin": {"operator_token": "x"}}}, "operator_token"),
            ({"config": {"dispatcher": {"slots": "many"}}}, "slots"),
            ({"config": {"dispatcher": {"drain": 20}}}, "drain"),
            ({"config": {"topics": {"retention": "1w"}}}, "retention"),
            ({"config": {"telemetry": {"format": "xml"}}}, "json"),
            ({"dispatcher": {"replicas": -1}}, "replicas"),
            ({"dispatcher": {"replicas": "2"}}, "replicas"),
            ({"dispatcher": {"membership": "sticky"}}, "membership"),
            ({"admin": {"projection": {"engine": "mysql"}}}, "postgres"),
            ({"producer": {"service": {"port": 0}}}, "port"),
            ({"producer": {"resource": {}}}, "resource"),
            ({"image": {"digest": "abc"}}, "digest"),
            ({"canary": {"url": "canary.example.org"}}, "url"),
            ({"canary": {"replicas": 2}}, "replicas"),
            ({"dispatcher": {"keda": {"targetCPUUtilizationPercentage": 0}}}, "targetCPUUtilization"),
            ({"enabled": "yes"}, "enabled"),
            ({"commonLabels": {"team": 1}}, "commonLabels/team"),
            ({"monitoring": {"prometheusRule": {"runbookBase": "docs/"}}}, "runbookBase"),
            ({"networkPolicy": {"kafkaPorts": ["9092"]}}, "kafkaPorts"),
            ({"networkPolicy": {"dnsPorts": []}}, "dnsPorts"),
            ({"networkPolicy": {"extraEgress": [{"from": []}]}}, "from"),
            ({"networkPolicy": {"extraIngress": [{"to": []}]}}, "to"),
            ({"config": {"canary": {"url": "https://canary.example.org"}}}, "url"),
        ]:
            with self.subTest(over):
                done = template(over=over)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn("values don't meet the specifications of the schema", done.stderr)
                self.assertIn(words, done.stderr)

    def test_values_that_do_not_go_together_are_refused_in_words(self):
        scram = {"mechanism": "scram-sha-512", "username": "u", "existingSecret": "s"}
        for over, words in [
            ({"kafka": {"bootstrap": ""}}, "kafka.bootstrap: name the brokers"),
            ({"secrets": {"keys": {"existingSecret": ""}}}, "kubectl create secret"),
            ({"secrets": {"operatorToken": {"existingSecret": ""}}}, "kubectl create secret"),
            ({"secrets": {"keys": {"primary": "k9"}}}, '"k9" is not one of secrets.keys.ids'),
            ({"kafka": {"credentials": scram}}, "is for kafka.securityProtocol sasl_ssl"),
            ({"kafka": {"securityProtocol": "sasl_ssl"}}, "name one of plain, scram"),
            (
                {"kafka": {"securityProtocol": "sasl_ssl", "credentials": {"mechanism": "plain"}}},
                "plain needs username and existingSecret",
            ),
            (
                {"kafka": {"securityProtocol": "sasl_ssl", "credentials": {"mechanism": "oauthbearer"}}},
                "give the audience",
            ),
            ({"kafka": {"ca": {"existingSecret": "x"}}}, "kafka.ca: is for"),
            (
                {"admin": {"kafka": {"clientCertificate": {"existingSecret": "x"}}}},
                "kafka.credentials (or admin.kafka).clientCertificate: is for",
            ),
            ({"dispatcher": {"replicas": 13}}, "13 dispatchers share 12 partitions"),
            (
                {
                    "config": {"topics": {"event_partitions": 4}},
                    "dispatcher": {"autoscaling": {"enabled": True}},
                },
                "dispatcher.autoscaling.maxReplicas: 6 dispatchers share 4 partitions",
            ),
            (
                {"dispatcher": {"keda": {"enabled": True, "maxReplicas": 40}}},
                "dispatcher.keda.maxReplicas: 40 dispatchers",
            ),
            (
                {"dispatcher": {"autoscaling": {"enabled": True}, "keda": {"enabled": True}}},
                "not both",
            ),
            (
                {
                    "producer": {
                        "autoscaling": {"enabled": True},
                        "resources": {"requests": {"cpu": None}},
                    }
                },
                "producer.resources.requests.cpu: say how much",
            ),
            ({"producer": {"autoscaling": {"minReplicas": 9}}}, "minReplicas 9 is more than"),
            ({"admin": {"projection": {"engine": "postgres"}}}, "postgresql://"),
            (
                {"admin": {"replicas": 2, "projection": {"persistence": {"enabled": True}}}},
                "use one replica, or the engine postgres",
            ),
            (
                {"admin": {"projection": {"engine": "none", "persistence": {"enabled": True}}}},
                "is for the engine sqlite",
            ),
            (
                {"commonLabels": {"app.kubernetes.io/name": "x"}},
                "commonLabels: app.kubernetes.io/name is what pods are found by",
            ),
            (
                {"producer": {"podLabels": {"app.kubernetes.io/component": "x"}}},
                "producer.podLabels: app.kubernetes.io/component is what pods are found by",
            ),
            ({"producer": {"ingress": {"enabled": True}}}, "producer.ingress.hosts"),
            ({"canary": {"enabled": True}}, "canary.url: say where dispatchers reach its receiver"),
            (
                {"canary": {"enabled": True, "url": "http://c/"}, "admin": {"enabled": False}},
                "canary.adminUrl: admin is not part of this release",
            ),
            (
                {"canary": {"enabled": True, "url": "http://c/"}, "producer": {"enabled": False}},
                "canary.ingestUrl: producer is not part of this release",
            ),
            (
                {
                    "canary": {"enabled": True, "url": "http://c/", "adminUrl": "http://a"},
                    "admin": {"enabled": False},
                    "secrets": {"operatorToken": {"existingSecret": ""}},
                },
                "canary.token.existingSecret: name a Secret",
            ),
            (
                # The topics job gets in with admin's, also without it.
                {
                    "kafka": {"securityProtocol": "sasl_ssl"},
                    "admin": {"enabled": False},
                    **{each: {"kafka": scram} for each in ("producer", "dispatcher", "metrics")},
                },
                "kafka.credentials (or admin.kafka).mechanism",
            ),
            (
                {
                    "admin": {"ingress": {"enabled": True, "hosts": ["p.example.org"], "tls": [{}]}},
                    "config": {"admin": {"session": {"secure": False}}},
                },
                "config.admin.session.secure: admin.ingress.tls is given",
            ),
            ({"canary": {"ingress": {"enabled": True}}}, "canary.ingress.hosts"),
            ({"admin": {"httpRoute": {"enabled": True}}}, "admin.httpRoute.parentRefs"),
            ({"monitoring": {"serviceMonitor": {"enabled": True}}}, "counted twice"),
        ]:
            with self.subTest(over):
                done = template(over=over)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn("These values do not work:", done.stderr)
                self.assertIn(words, done.stderr)

    def test_a_chart_above_may_say_whether_and_what_is_global(self):
        for over in ({"enabled": True}, {"global": {"imageRegistry": "registry.example"}}):
            done = template(over=over)
            self.assertEqual(done.stdout, template().stdout, done.stderr)

    def test_all_of_it_is_said_at_once(self):
        done = template(over={"kafka": {"bootstrap": ""}, "dispatcher": {"replicas": 99}})
        self.assertIn("kafka.bootstrap", done.stderr)
        self.assertIn("99 dispatchers", done.stderr)

    def test_schema_of_config_is_the_programs(self):
        advice = "run: cargo xtask reference"
        self.assertEqual(schema.SCHEMA.read_text(), schema.current(), advice)


class Configuration(unittest.TestCase):
    """`ringback config` reads what each pod would be given."""

    def test_every_pods_configuration_has_no_mistake(self):
        read = 0
        for values in VALUES:
            for workload in workloads(objects(values)):
                with self.subTest(values, of=component(workload)):
                    self.read(workload)
                    read += 1
        self.assertGreaterEqual(read, 4 * len(VALUES))

    def test_what_was_given_arrives(self):
        text = self.read(one(objects("full"), "Deployment", "producer"))
        for line in [
            'prefix = "voice."',
            "event_partitions = 24",
            'tiers = ["10s", "5m", "1h"]',
            "in_flight_bytes_max = 536870912",
            'id-from = ["uniqueid", "sequence"]',
            'drain = "90s"',
            "allow_ports = [8088]",
            'log = "info,ringback_dispatcher=debug"',
            'group_prefix = "voice."',
            'username = "ringback-producer"',
        ]:
            with self.subTest(line):
                self.assertIn(line, text)
        # TOML has several ways to quote.
        self.assertRegex(text, r"""source = .*it's-\$\(HOME\)-\\?"quoted\\?\"""")

    def test_a_wrong_value_is_named_by_its_variable(self):
        over = {"config": {"topics": {"retention": "1h"}}}
        producer = one(rendered(over=over), "Deployment", "producer")
        done = self.run_config(producer)
        self.assertEqual(done.returncode, 64)
        self.assertIn("RINGBACK_TOPICS__RETENTION: topics.retention: use at least", done.stderr)

    def test_a_forgotten_secret_is_named_by_the_program(self):
        """Kubernetes would have the pod wait for it; that of the hook until its time is over and it goes."""
        # These the program reads only when it has reached Kafka.
        later = {"operator-token", "mail-password", "proxy-password"}
        left_out = set()
        for values in VALUES:
            for workload in workloads(objects(values)):
                if component(workload) == "canary":
                    continue
                volumes = {
                    (volume[kind].get("secretName") or volume[kind]["name"]): volume[kind]
                    for volume in pod(workload).get("volumes", [])
                    for kind in ("secret", "configMap")
                    if kind in volume and volume["name"] not in later
                }
                references = [
                    entry["valueFrom"]["secretKeyRef"]["name"]
                    for entry in container(workload)["env"]
                    if "secretKeyRef" in entry.get("valueFrom", {})
                ]
                for name in {*volumes, *references}:
                    with self.subTest(values, of=component(workload), without=name):
                        self.assertTrue(volumes.get(name, {"optional": True}).get("optional"))
                        done = self.run_config(workload, without=name)
                        self.assertEqual(done.returncode, 64, done.stderr)
                        words = "there is no secrets.keys|cannot be read|name the server"
                        self.assertRegex(done.stderr, words)
                        left_out.add(name)
        self.assertGreaterEqual(len(left_out), 8, left_out)

    def test_a_forgotten_key_is_named_by_the_program(self):
        producer = one(objects("full"), "Deployment", "producer")
        for name, words in [
            ("RINGBACK_SECRETS__KEYS__K2_NEW", "there is no secrets.keys.k2_new"),
            ("KEY_K1", "RINGBACK_SECRETS__KEYS__K1: secrets.keys.k1: is not the base64"),
        ]:
            without = copy.deepcopy(producer)
            env = [entry for entry in container(without)["env"] if entry["name"] != name]
            container(without)["env"] = env
            done = self.run_config(without)
            self.assertEqual(done.returncode, 64)
            self.assertIn(words, done.stderr)

    def read(self, workload):
        done = self.run_config(workload)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def run_config(self, workload, without=None):
        """Runs it with the pod's variables, and files where the pod has its mounts, but for one Secret."""
        with tempfile.TemporaryDirectory() as folder:
            for mount in container(workload).get("volumeMounts", []):
                if mount["mountPath"].startswith("/etc/ringback/"):
                    self.fill(workload, mount, Path(folder + mount["mountPath"]), without)
            environment = {
                name: value.replace("/etc/ringback/", f"{folder}/etc/ringback/")
                for name, value in variables(workload, without).items()
            }
            return subprocess.run(
                [RINGBACK, "config"],
                env=environment,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=60,
            )

    def fill(self, workload, mount, folder, without):
        [volume] = [each for each in pod(workload)["volumes"] if each["name"] == mount["name"]]
        source = volume.get("secret") or volume.get("configMap")
        items = source["items"] if source else volume["projected"]["sources"][0].values()
        folder.mkdir(parents=True)
        if without and without in (source or {}).values():
            return
        for item in items:
            name = item["path"]
            kind = "key" if name.endswith(".key") else "crt"
            certificate = name.endswith((".crt", ".key"))
            text = pem()[kind] if certificate else token() if name == "token" else "an-operators-token"
            (folder / name).write_text(text)


@cache
def pem():
    """A certificate and its key."""
    with tempfile.TemporaryDirectory() as folder:
        args = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=t -days 2"
        made = ["-keyout", f"{folder}/key", "-out", f"{folder}/crt"]
        subprocess.run(["openssl", *args.split(), *made], check=True, capture_output=True)
        return {name: (Path(folder) / name).read_text() for name in ("key", "crt")}


def token():
    """A JWT that expires in 2100."""
    return "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIiwiZXhwIjo0MTAyNDQ0ODAwfQ."


if __name__ == "__main__":
    unittest.main()
