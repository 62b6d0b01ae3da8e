"""deploy/strimzi.yaml and its values in docs/kubernetes.md are of one piece, and grant what is needed."""

import re
import unittest

import yaml

from chart import COMPONENTS, ROOT, component, container, pod, rendered, variables, workloads

EXAMPLE = [each for each in yaml.safe_load_all((ROOT / "deploy/strimzi.yaml").read_text()) if each]
# As Strimzi's KafkaUser names what Kafka's tools call so.
KINDS = {"topic": "topic", "group": "group", "transactionalId": "transactional-id"}


def of_kind(kind):
    return [each for each in EXAMPLE if each["kind"] == kind]


def pieces(part):
    """The values in docs/kubernetes.md with a text in them."""
    page = (ROOT / "docs/kubernetes.md").read_text()
    found = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return [yaml.safe_load(text) for text in found if part in text]


class Strimzi(unittest.TestCase):
    def test_users_have_the_grants_of_the_table(self):
        page = (ROOT / "docs/kafka.md").read_text()
        for user in COMPONENTS:
            # A test of the program compares the table with it.
            row = re.search(rf"^\| `{user}` \| (Describe .*) \|$", page, re.MULTILINE)[1]
            users = {each["metadata"]["name"]: each["spec"] for each in of_kind("KafkaUser")}
            authorization = users[f"ringback-{user}"]["authorization"]
            self.assertEqual(authorization["type"], "simple")
            given = set()
            for acl in authorization["acls"]:
                self.assertLessEqual(acl.keys(), {"resource", "operations"})
                resource = acl["resource"]
                star = {"literal": "", "prefix": "*"}[resource.get("patternType", "literal")]
                for operation in acl["operations"]:
                    given.add(f"{operation} {KINDS[resource['type']]} `{resource['name']}{star}`")
            with self.subTest(user):
                self.assertEqual(given, set(row.split("; ")))
        self.assertEqual(len(of_kind("KafkaUser")), len(COMPONENTS))

    def test_everything_belongs_to_the_cluster(self):
        [cluster] = of_kind("Kafka")
        name = cluster["metadata"]["name"]
        self.assertEqual({each["apiVersion"] for each in EXAMPLE}, {"kafka.strimzi.io/v1"})
        self.assertEqual({each["metadata"]["namespace"] for each in EXAMPLE}, {"kafka"})
        for each in of_kind("KafkaUser") + of_kind("KafkaNodePool"):
            self.assertEqual(each["metadata"]["labels"], {"strimzi.io/cluster": name})
        self.assertEqual(cluster["spec"]["kafka"]["authorization"], {"type": "simple"})
        self.assertFalse(cluster["spec"]["kafka"]["config"]["auto.create.topics.enable"])
        # What is copied for the pods.
        copied = [cluster["spec"]["kafka"]["template"]["clusterCaCert"]]
        copied += [each["spec"]["template"]["secret"] for each in of_kind("KafkaUser")]
        for each in copied:
            annotations = each["metadata"]["annotations"]
            self.assertEqual(annotations["reflector.v1.k8s.emberstack.com/reflection-auto-enabled"], "true")

    def test_values_of_the_page_lead_there(self):
        [cluster] = of_kind("Kafka")
        name = cluster["metadata"]["name"]
        listeners = {each["authentication"]["type"]: each for each in cluster["spec"]["kafka"]["listeners"]}
        for by, protocol in [("scram-sha-512", "sasl_ssl"), ("tls", "ssl")]:
            [values] = [each for each in pieces("pbx-kafka") if each["kafka"]["securityProtocol"] == protocol]
            self.assertTrue(listeners[by]["tls"])
            found = rendered(over=values)
            seen = set()
            for workload in workloads(found):
                user = {"topics": "admin"}.get(component(workload), component(workload))
                given = variables(workload)
                at = f"{name}-kafka-bootstrap.kafka:{listeners[by]['port']}"
                self.assertEqual(given["RINGBACK_LOG__KAFKA__BOOTSTRAP"], at)
                volumes = [each for each in pod(workload)["volumes"] if "secret" in each]
                secrets = {each["name"]: each["secret"]["secretName"] for each in volumes}
                self.assertEqual(secrets["kafka-ca"], f"{name}-cluster-ca-cert")
                if by == "tls":
                    self.assertEqual(secrets["kafka-client"], f"ringback-{user}")
                else:
                    self.assertEqual(given["RINGBACK_LOG__KAFKA__SASL__MECHANISM"], by)
                    self.assertEqual(given["RINGBACK_LOG__KAFKA__SASL__USERNAME"], f"ringback-{user}")
                    self.assertEqual(secrets["kafka-password"], f"ringback-{user}")
                # Replaced when the operator has renewed them.
                reloaded = workload["metadata"]["annotations"]["reloader.stakater.com/auto"]
                self.assertEqual(reloaded, "true")
                self.assertTrue(container(workload)["volumeMounts"])
                seen.add(component(workload))
            self.assertEqual(seen, {*COMPONENTS, "topics"})

    def test_all_values_of_the_page_are_values(self):
        """Whatever the page shows of values.yaml, the chart takes."""
        shown = 0
        for part in ("values.yaml", "canary:", "ingress:", "podMonitor:", "projection:"):
            for values in pieces(part):
                if "rules" in values:
                    continue
                with self.subTest(values):
                    rendered(over=values)
                    shown += 1
        self.assertGreaterEqual(shown, 6)


if __name__ == "__main__":
    unittest.main()
