"""The objects that the chart makes: pods, and what finds, scales, watches and feeds them."""

import copy
import json
import re
import unittest

import yaml

from chart import (
    CHART,
    COMPONENTS,
    ROOT,
    VALUES,
    component,
    container,
    notes,
    objects,
    of_kind,
    one,
    pod,
    rendered,
    template,
    variables,
    workloads,
)
from cluster import cluster


def blocks(page):
    """The pieces of YAML in a page."""
    return re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


class Pods(unittest.TestCase):
    def each(self):
        for values in VALUES:
            for workload in workloads(objects(values)):
                with self.subTest(values, of=component(workload)):
                    yield values, workload

    def test_pod_security_restricted(self):
        for _, workload in self.each():
            spec, only = pod(workload), container(workload)
            self.assertTrue(spec["securityContext"]["runAsNonRoot"])
            self.assertNotEqual(spec["securityContext"]["runAsUser"], 0)
            self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            inner = only["securityContext"]
            self.assertFalse(inner["allowPrivilegeEscalation"])
            self.assertTrue(inner["readOnlyRootFilesystem"])
            self.assertEqual(inner["capabilities"], {"drop": ["ALL"]})
            allowed = {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}
            for volume in spec.get("volumes", []):
                self.assertTrue(volume.keys() - {"name"} <= allowed, volume)
            for forbidden in ("hostNetwork", "hostPID", "hostIPC"):
                self.assertNotIn(forbidden, spec)
            self.assertFalse(spec["automountServiceAccountToken"])
            self.assertIn("memory", only["resources"]["limits"])
            self.assertEqual(only["terminationMessagePolicy"], "FallbackToLogsOnError")

    def test_pods_are_given_the_time_that_draining_takes(self):
        for values, workload in self.each():
            if workload["kind"] == "Job":
                continue
            given = yaml.safe_load((CHART / f"ci/{values}.yaml").read_text())
            drain = given.get("config", {}).get("dispatcher", {}).get("drain", "20s")
            sleep = container(workload).get("lifecycle", {}).get("preStop", {})
            needed = 30 + sleep.get("sleep", {}).get("seconds", 0)
            if component(workload) == "dispatcher":
                needed += int(drain.removesuffix("s"))
            self.assertEqual(pod(workload)["terminationGracePeriodSeconds"], needed)

    def test_grace_can_be_given(self):
        over = {"metrics": {"terminationGracePeriodSeconds": 7}}
        found = one(rendered(over=over), "Deployment", "metrics")
        self.assertEqual(pod(found)["terminationGracePeriodSeconds"], 7)

    def test_only_servers_wait_before_they_stop(self):
        for _, workload in self.each():
            waits = "lifecycle" in container(workload)
            self.assertEqual(waits, component(workload) in ("producer", "admin"))

    def test_probes_ask_what_the_program_answers(self):
        source = (ROOT / "crates/telemetry/src/server.rs").read_text()
        for _, workload in self.each():
            if workload["kind"] == "Job":
                continue
            only = container(workload)
            ports = {port["name"]: port["containerPort"] for port in only["ports"]}
            listen = {name: value for name, value in variables(workload).items() if "LISTEN" in name}
            self.assertEqual(sorted(ports.values()), sorted(int(at.split(":")[1]) for at in listen.values()))
            for probe, path in [
                ("startupProbe", "/healthz"),
                ("livenessProbe", "/healthz"),
                ("readinessProbe", "/readyz"),
            ]:
                self.assertEqual(only[probe]["httpGet"], {"path": path, "port": "telemetry"})
                self.assertIn(f'.route("{path}"', source)

    def test_secrets_come_by_reference_and_only_where_they_are_needed(self):
        for _, workload in self.each():
            for entry in container(workload)["env"]:
                if re.search("PASSWORD$|SECRETS__KEYS|^KEY_|PROJECTION__URL|TOKEN$", entry["name"]):
                    reference = "$(" + entry["name"].replace("RINGBACK_SECRETS__KEYS__", "KEY_") + ")"
                    if entry.get("value") != reference:
                        self.assertIn("secretKeyRef", entry["valueFrom"], entry["name"])
            of_operators = "operator-token" in json.dumps(workload)
            self.assertEqual(of_operators, component(workload) == "admin")
        for values in VALUES:
            self.assertEqual(of_kind(objects(values), "Secret", "Role", "ClusterRole"), [])

    def test_each_component_gets_into_kafka_with_its_own(self):
        found = objects("certificates")
        secrets = {}
        for workload in workloads(found):
            for volume in pod(workload)["volumes"]:
                if volume["name"] == "kafka-client":
                    secrets[component(workload)] = volume["secret"]["secretName"]
        self.assertEqual(
            secrets,
            {
                "producer": "ringback-producer",
                "dispatcher": "ringback-dispatcher",
                "metrics": "ringback-user",
                "admin": "ringback-user",
            },
        )
        full = {component(each): variables(each) for each in workloads(objects("full"))}
        name = "RINGBACK_LOG__KAFKA__SASL__USERNAME"
        self.assertEqual(full["producer"][name], "ringback-producer")
        self.assertEqual(full["topics"][name], "ringback")

    def test_extras_arrive(self):
        producer = one(objects("full"), "Deployment", "producer")
        spec, only = pod(producer), container(producer)
        labels = producer["spec"]["template"]["metadata"]
        self.assertIn({"name": "EXTRA", "value": "1"}, only["env"])
        self.assertIn({"name": "more", "mountPath": "/more"}, only["volumeMounts"])
        self.assertIn({"name": "more", "emptyDir": {}}, spec["volumes"])
        self.assertEqual(only["envFrom"], [{"configMapRef": {"name": "more"}}])
        self.assertEqual(labels["labels"]["tier"], "front")
        self.assertEqual(labels["labels"]["team"], "voice")
        self.assertEqual(labels["annotations"], {"example.org/a": "b", "example.org/owner": "voice"})
        self.assertEqual(spec["nodeSelector"], {"pool": "front"})
        self.assertEqual(spec["priorityClassName"], "high")
        self.assertEqual(only["image"], "registry.example/ringback:1.2.3")
        digest = "sha256:" + "0" * 64
        found = rendered(over={"image": {"digest": digest}})
        self.assertEqual(container(workloads(found)[0])["image"], f"ringback@{digest}")
        self.assertTrue(any(each["metadata"]["name"] == "rb-extra" for each in objects("full")))


    def test_labels_are_there_once_and_ones_own_go_over_the_usual(self):
        over = {
            "commonLabels": {"app.kubernetes.io/part-of": "pbx", "team": "voice"},
            "producer": {"podLabels": {"team": "events"}, "service": {"labels": {"team": "front"}}},
        }
        text = template(over=over).stdout
        # YAML's reader takes the last of two without a word.
        for document in text.split("\n---\n"):
            for line in ("app.kubernetes.io/part-of:", "team:"):
                indented = re.findall(rf"^ *{line}", document, re.MULTILINE)
                self.assertEqual(len(indented), len(set(indented)), document)
        producer = one(rendered(over=over), "Deployment", "producer")
        self.assertEqual(producer["metadata"]["labels"]["team"], "voice")
        self.assertEqual(producer["metadata"]["labels"]["app.kubernetes.io/part-of"], "pbx")
        labels = producer["spec"]["template"]["metadata"]["labels"]
        self.assertEqual(labels["team"], "events")
        self.assertEqual(labels["app.kubernetes.io/component"], "producer")
        service = one(rendered(over=over), "Service", "producer")
        self.assertEqual(service["metadata"]["labels"]["team"], "front")

    def test_the_topics_job_runs_where_and_how_admin_does(self):
        own = {
            "affinity": {"nodeAffinity": {}},
            "nodeSelector": {"pool": "a"},
            "tolerations": [{"operator": "Exists"}],
            "priorityClassName": "high",
            "extraEnv": [{"name": "EXTRA", "value": "1"}],
            "extraEnvFrom": [{"configMapRef": {"name": "more"}}],
            "extraVolumes": [{"name": "more", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        }
        found = rendered(over={"admin": own})
        job, admin = one(found, "Job", "topics"), one(found, "Deployment", "admin")
        for name in ("affinity", "nodeSelector", "tolerations", "priorityClassName"):
            self.assertEqual(pod(job)[name], own[name])
            self.assertEqual(pod(admin)[name], own[name])
        self.assertIn(own["extraEnv"][0], container(job)["env"])
        self.assertEqual(container(job)["envFrom"], own["extraEnvFrom"])
        self.assertEqual(pod(job)["volumes"], own["extraVolumes"])
        self.assertEqual(container(job)["volumeMounts"], own["extraVolumeMounts"])

    def test_the_portal_behind_tls_keeps_its_cookie_to_tls(self):
        secure, url = "RINGBACK_ADMIN__SESSION__SECURE", "RINGBACK_ADMIN__PUBLIC_URL"
        ingress = {"enabled": True, "hosts": ["portal.example.org", "p.example.org"]}

        def given(**over):
            return variables(one(rendered(over=over), "Deployment", "admin"))

        plain = given(admin={"ingress": ingress})
        self.assertNotIn(secure, plain)
        self.assertNotIn(url, plain)
        ingress["tls"] = [{"secretName": "t"}]
        behind = given(admin={"ingress": ingress})
        self.assertEqual(behind[secure], "true")
        self.assertEqual(behind[url], "https://portal.example.org")
        config = {"admin": {"public_url": "https://else.where", "session": {"secure": True}}}
        said = given(admin={"ingress": ingress}, config=config)
        self.assertEqual(said[url], "https://else.where")
        self.assertEqual(said[secure], "true")

    def test_a_pod_asks_for_the_room_that_it_may_take(self):
        def room(**over):
            admin = one(rendered(over={"admin": over}), "Deployment", "admin")
            return container(admin)["resources"]["requests"]

        limit = {"projection": {"sizeLimit": "20Gi"}}
        self.assertEqual(room(**limit)["ephemeral-storage"], "20Gi")
        self.assertEqual(room(**limit)["cpu"], "100m")
        kept = {"projection": {"persistence": {"enabled": True}}}
        self.assertNotIn("ephemeral-storage", room(**kept))
        less = {"resources": {"requests": {"ephemeral-storage": "1Gi"}}}
        self.assertEqual(room(**less)["ephemeral-storage"], "1Gi")
        self.assertNotIn("ephemeral-storage", room(projection={"engine": "none"}))

    def test_dispatchers_may_be_full_of_large_events(self):
        page = (ROOT / "docs/configuration.md").read_text()
        slots = int(re.search(r"^\| `dispatcher.slots` \| `(\d+)`", page, re.MULTILINE)[1])
        resources = container(one(objects("minimal"), "Deployment", "dispatcher"))["resources"]
        limit = int(resources["limits"]["memory"].removesuffix("Gi")) * 1024
        self.assertGreaterEqual(limit, 150 + slots * 256 // 1024 + 512)


class Notes(unittest.TestCase):
    """What Helm says when it has installed."""

    def test_what_the_portal_needs_behind_a_proxy(self):
        self.assertNotIn("trusted_proxies", notes())
        ingress = {"enabled": True, "hosts": ["portal.example.org"]}
        text = notes(over={"admin": {"ingress": ingress}})
        self.assertIn("http://portal.example.org/portal/", text)
        self.assertIn("config.admin.trusted_proxies names nobody", text)
        self.assertIn("set config.admin.session.secure", text)
        ingress["tls"] = [{"secretName": "t"}]
        text = notes(over={"admin": {"ingress": ingress}})
        self.assertIn("https://portal.example.org/portal/", text)
        self.assertIn("config.admin.trusted_proxies names nobody", text)
        self.assertNotIn("set config.admin.session.secure", text)
        config = {"admin": {"trusted_proxies": ["10.0.0.0/8"]}}
        self.assertNotIn("trusted_proxies", notes(over={"admin": {"ingress": ingress}, "config": config}))
        route = {"enabled": True, "parentRefs": [{"name": "public"}]}
        self.assertIn("set config.admin.session.secure", notes(over={"admin": {"httpRoute": route}}))

    def test_what_stands_in_front_of_the_ingest_must_let_through(self):
        self.assertNotIn("proxy-body-size", notes())
        ingress = {"enabled": True, "hosts": ["events.example.org"]}
        config = {"ingest": {"body_bytes_max": 4194304}}
        text = notes(over={"producer": {"ingress": ingress}, "config": config})
        self.assertIn("bodies of 4194304 bytes", text)
        ingress["annotations"] = {"nginx.ingress.kubernetes.io/proxy-body-size": "8m"}
        self.assertNotIn("413", notes(over={"producer": {"ingress": ingress}}))

    def test_what_is_renewed_is_read_at_the_start(self):
        self.assertNotIn("When they are renewed", notes())
        self.assertIn("When they are renewed", notes("certificates"))
        over = {"commonAnnotations": {"reloader.stakater.com/auto": "true"}}
        self.assertNotIn("When they are renewed", notes("certificates", over=over))

    def test_when_the_projection_outgrows_the_pod(self):
        self.assertIn("a volume of 10Gi that goes with the pod", notes())
        for projection in ({"engine": "none"}, {"persistence": {"enabled": True}}):
            self.assertNotIn("goes with the pod", notes(over={"admin": {"projection": projection}}))


    def test_a_prometheus_that_selects_by_label(self):
        words = "monitoring.podMonitor.labels is empty"
        self.assertIn(words, notes(crds=True))
        self.assertNotIn(words, notes())
        labels = {"release": "prometheus"}
        monitoring = {"podMonitor": {"labels": labels}, "prometheusRule": {"labels": labels}}
        text = notes(over={"monitoring": monitoring}, crds=True)
        self.assertNotIn("labels is empty", text)


class Wiring(unittest.TestCase):
    def test_selectors_find_their_pods_and_stay_as_they_are(self):
        for values in VALUES:
            found = objects(values)
            pods = [each["spec"]["template"]["metadata"]["labels"] for each in workloads(found)]
            for each in of_kind(found, "Deployment", "StatefulSet"):
                chosen = each["spec"]["selector"]["matchLabels"]
                self.assertEqual(len([1 for labels in pods if chosen.items() <= labels.items()]), 1)
                # They cannot be changed by an upgrade.
                self.assertEqual(len(chosen), 3)
            selectors = [each["spec"]["selector"] for each in of_kind(found, "Service")]
            selectors += [
                each["spec"]["selector"]["matchLabels"]
                for each in of_kind(found, "PodDisruptionBudget", "PodMonitor")
            ]
            selectors += [
                each["spec"]["podSelector"]["matchLabels"] for each in of_kind(found, "NetworkPolicy")
            ]
            for chosen in selectors:
                self.assertTrue(any(chosen.items() <= labels.items() for labels in pods), chosen)

    def test_each_component_has_its_budget_and_account(self):
        for values in VALUES:
            found = objects(values)
            for of in COMPONENTS:
                one(found, "PodDisruptionBudget", of)
            accounts = {each["metadata"]["name"] for each in of_kind(found, "ServiceAccount")}
            used = {pod(each)["serviceAccountName"] for each in workloads(found)}
            self.assertTrue(used == accounts or used == {"shared"}, (used, accounts))

    def test_each_component_is_let_out_to_what_it_needs(self):
        ports = {
            component(each): [
                port["port"] for rule in each["spec"]["egress"] for port in rule.get("ports", [])
            ]
            for each in of_kind(objects("full"), "NetworkPolicy")
        }
        dns, kafka, other = [53, 53, 5353, 5353], [9093, 9094], [8443]
        self.assertEqual(
            ports,
            {
                # Both make spans, which go to the collector.
                "producer": [*dns, *kafka, 4318, *other],
                "dispatcher": [*dns, *kafka, 3128, 4318, *other],
                "metrics": [*dns, *kafka, *other],
                "admin": [*dns, *kafka, 587, 5432, *other],
                # Administration by the address given, ingest in this release.
                "canary": [*dns, 443, 8080, *other],
                "topics": [*dns, *kafka, *other],
            },
        )
        self.assertEqual(self.webhooks("full"), ["0.0.0.0/0"])
        anywhere = {"networkPolicy": {"webhooksTo": []}}
        self.assertEqual(self.webhooks("full", over=anywhere), ["0.0.0.0/0", "::/0"])
        served = one(objects("full"), "NetworkPolicy", "metrics")["spec"]["ingress"]
        self.assertIn({"ports": [{"port": 9999}]}, served)
        others = {"networkPolicy": {"enabled": True, "kafkaPorts": [19092], "dnsPorts": [53]}}
        metrics = one(rendered(over=others), "NetworkPolicy", "metrics")["spec"]["egress"]
        self.assertEqual([port["port"] for rule in metrics for port in rule["ports"]], [53, 53, 19092])

    def webhooks(self, values, **options):
        """The networks that dispatchers may send to at any port."""
        dispatcher = one(rendered(values, **options), "NetworkPolicy", "dispatcher")["spec"]["egress"]
        rules = [rule for rule in dispatcher if "ports" not in rule]
        return [to["ipBlock"]["cidr"] for rule in rules for to in rule["to"]]

    def test_the_topics_job_is_let_out_before_it_comes(self):
        policy = one(objects("full"), "NetworkPolicy", "topics")
        job = one(objects("full"), "Job", "topics")
        hooks = [each["metadata"]["annotations"] for each in (policy, job)]
        for annotations in hooks:
            self.assertEqual(annotations["helm.sh/hook"], "pre-install,pre-upgrade")
        weights = [int(annotations["helm.sh/hook-weight"]) for annotations in hooks]
        self.assertLess(weights[0], weights[1])
        found = of_kind(rendered("full", over={"topics": {"enabled": False}}), "NetworkPolicy")
        self.assertFalse([each for each in found if component(each) == "topics"])

    def test_the_canary_is_one_and_a_customer(self):
        for values in ("full", "token"):
            with self.subTest(values):
                canary = one(objects(values), "Deployment", "canary")
                self.assertEqual(canary["spec"]["replicas"], 1)
                # Never two of them, which would take webhook and token from each other.
                self.assertEqual(canary["spec"]["strategy"], {"type": "Recreate"})
                self.assertEqual(container(canary)["args"], ["canary"])
                # Nothing of Kafka, and no key for anybody's secrets.
                names = [entry["name"] for entry in container(canary)["env"]]
                of_others = ("RINGBACK_LOG", "RINGBACK_SECRETS", "RINGBACK_ADMIN", "RINGBACK_DISPATCHER")
                self.assertEqual([name for name in names if name.startswith(of_others)], [])
                self.assertEqual([each["name"] for each in pod(canary)["volumes"]], ["canary-token"])
                service = one(objects(values), "Service", "canary")["spec"]
                self.assertTrue(service["publishNotReadyAddresses"])
        full, tokens = objects("full"), objects("token")
        [secret] = pod(one(full, "Deployment", "canary"))["volumes"]
        self.assertEqual(secret["secret"]["secretName"], "ringback-operator")
        self.assertEqual(secret["secret"]["items"], [{"key": "token", "path": "token"}])
        [secret] = pod(one(tokens, "Deployment", "canary"))["volumes"]
        self.assertEqual(secret["secret"]["secretName"], "ringback-canary")
        given = variables(one(tokens, "Deployment", "canary"))
        self.assertEqual(given["RINGBACK_CANARY__ADMIN_URL"], "http://rb-ringback-admin.voice:80")
        self.assertEqual(given["RINGBACK_CANARY__INGEST_URL"], "http://rb-ringback-producer.voice:80")
        given = variables(one(full, "Deployment", "canary"))
        self.assertEqual(given["RINGBACK_CANARY__URL"], "https://canary.example.org/")
        self.assertEqual(given["RINGBACK_CANARY__EVERY"], "5s")
        others = variables(one(full, "Deployment", "admin"))
        self.assertFalse([name for name in others if "CANARY" in name])
        host = one(full, "Ingress", "canary")["spec"]["rules"][0]["host"]
        self.assertEqual(host, "canary.example.org")
        # It is let in where others are kept out.
        [_, served, _] = one(full, "NetworkPolicy", "admin")["spec"]["ingress"]
        chosen = served["from"][-1]["podSelector"]["matchLabels"]
        self.assertEqual(chosen["app.kubernetes.io/component"], "canary")
        self.assertEqual(len(served["from"]), 2)
        self.assertFalse([each for each in objects("minimal") if component(each) == "canary"])

    def test_topics_come_first(self):
        for of in of_kind(objects("minimal"), "Job", "ServiceAccount"):
            if component(of) == "topics":
                annotations = of["metadata"]["annotations"]
                self.assertEqual(annotations["helm.sh/hook"], "pre-install,pre-upgrade")
        job = one(objects("minimal"), "Job", "topics")
        self.assertEqual(container(job)["args"], ["doctor", "--create-topics"])
        self.assertEqual(pod(job)["restartPolicy"], "Never")
        self.assertEqual(of_kind(objects("certificates"), "Job"), [])
        # What is wrong with the configuration stays so.
        [rule] = job["spec"]["podFailurePolicy"]["rules"]
        self.assertEqual(rule, {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [64]}})

    def test_an_autoscaler_alone_decides_the_replicas(self):
        full, tokens = objects("full"), objects("token")
        for of in ("producer", "dispatcher"):
            self.assertNotIn("replicas", one(full, "Deployment", of)["spec"])
            target = one(full, "HorizontalPodAutoscaler", of)["spec"]["scaleTargetRef"]
            self.assertEqual(target["name"], one(full, "Deployment", of)["metadata"]["name"])
        dispatcher = one(tokens, "StatefulSet", "dispatcher")
        self.assertNotIn("replicas", dispatcher["spec"])
        scaled = one(tokens, "ScaledObject", "dispatcher")["spec"]
        self.assertEqual(scaled["scaleTargetRef"]["name"], dispatcher["metadata"]["name"])
        self.assertEqual(one(tokens, "Deployment", "producer")["spec"]["replicas"], 2)

    def test_what_an_autoscaler_chose_is_left_alone(self):
        """Helm removes what the last manifest had and the next has not, and then it is 1."""
        on = {
            "dispatcher": {"autoscaling": {"enabled": True}},
            "producer": {"autoscaling": {"enabled": True}},
        }
        first = one(rendered(over=on), "Deployment", "dispatcher")
        self.assertNotIn("replicas", first["spec"])
        self.assertEqual(first["metadata"]["annotations"], {"ringback/replicas": "autoscaler"})
        # Scaled since: nothing is said of it, so that going back to this release says nothing of it either.
        scaled = copy.deepcopy(first)
        scaled["spec"]["replicas"] = 5
        with cluster([scaled]) as kubeconfig:
            next = one(rendered(over=on, kubeconfig=kubeconfig), "Deployment", "dispatcher")
            off = one(rendered(kubeconfig=kubeconfig), "Deployment", "dispatcher")
        self.assertEqual(next, first)
        self.assertEqual(off["spec"]["replicas"], 2)
        self.assertNotIn("annotations", off["metadata"])
        # Switched on later, or by a chart that did not leave the mark: the last manifest has a number.
        numbered = copy.deepcopy(off)
        numbered["spec"]["replicas"] = 5
        with cluster([numbered]) as kubeconfig:
            found = rendered(over=on, kubeconfig=kubeconfig)
        later = one(found, "Deployment", "dispatcher")
        self.assertEqual(later["spec"]["replicas"], 5)
        self.assertNotIn("annotations", later["metadata"])
        self.assertNotIn("replicas", one(found, "Deployment", "producer")["spec"])
        # KEDA's and those of static members likewise.
        for replicas, annotations in [(None, {"ringback/replicas": "autoscaler"}), (7, {})]:
            live = copy.deepcopy(one(objects("token"), "StatefulSet", "dispatcher"))
            live["spec"]["replicas"] = 7
            live["metadata"]["annotations"] = annotations
            with cluster([live]) as kubeconfig:
                found = one(rendered("token", kubeconfig=kubeconfig), "StatefulSet", "dispatcher")
            self.assertEqual(found["spec"].get("replicas"), replicas)

    def test_none_are_as_many_as_any(self):
        found = one(rendered(over={"dispatcher": {"replicas": 0}}), "Deployment", "dispatcher")
        self.assertEqual(found["spec"]["replicas"], 0)

    def test_lag_and_age_scale(self):
        [cpu, *scaled] = one(objects("certificates"), "ScaledObject", "dispatcher")["spec"]["triggers"]
        self.assertEqual(cpu, {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "70"}})
        groups = [each["metadata"]["consumerGroup"] for each in scaled if each["type"] == "kafka"]
        topics = ("cdr", "extension", "resource", "system")
        self.assertEqual(groups, [f"ringback.dispatcher.events.{topic}" for topic in topics])
        self.assertEqual(scaled[0]["metadata"]["offsetResetPolicy"], "earliest")
        authentication = one(objects("certificates"), "TriggerAuthentication", "dispatcher")
        self.assertEqual(scaled[0]["authenticationRef"]["name"], authentication["metadata"]["name"])
        [cpu, *queries] = one(objects("token"), "ScaledObject", "dispatcher")["spec"]["triggers"]
        self.assertEqual(cpu["type"], "cpu")
        self.assertEqual(len(queries), 3)
        self.assertEqual(queries[-1]["metadata"]["threshold"], str(4096 * 7 // 10))
        metrics = (ROOT / "docs/metrics.md").read_text()
        for trigger in queries:
            name = re.search(r"ringback_\w+", trigger["metadata"]["query"])[0]
            self.assertIn(f"`{name}`", metrics)
            self.assertEqual(trigger["metadata"]["ignoreNullValues"], "false")

    def test_the_backlog_is_one_value(self):
        """The autoscaler adds up what an external metric has: of a series per pod and topic, ages."""
        [_, backlog] = one(objects("full"), "HorizontalPodAutoscaler", "dispatcher")["spec"]["metrics"]
        recorded = "ringback:oldest_waiting_seconds:max"
        self.assertEqual(backlog["external"]["metric"], {"name": recorded})
        self.assertEqual(backlog["external"]["target"], {"type": "Value", "value": "30"})
        page = (ROOT / "docs/kubernetes.md").read_text()
        [adapter] = [text for text in blocks(page) if "seriesQuery" in text]
        [rule] = yaml.safe_load(adapter)["rules"]["external"]
        self.assertIn(recorded, rule["seriesQuery"])
        self.assertEqual(rule["metricsQuery"], "max(<<.Series>>{<<.LabelMatchers>>})")

    def test_static_members_keep_their_names(self):
        dispatcher = one(objects("token"), "StatefulSet", "dispatcher")
        name = "RINGBACK_LOG__KAFKA__PROPERTIES__GROUP_INSTANCE_ID"
        self.assertEqual(variables(dispatcher)[name], "rb-dispatcher-0")
        [service] = [
            each
            for each in of_kind(objects("token"), "Service")
            if each["metadata"]["name"] == dispatcher["spec"]["serviceName"]
        ]
        self.assertEqual(service["spec"]["clusterIP"], "None")

    def test_rules_and_dashboards_are_those_of_the_repository(self):
        rule = yaml.safe_load((ROOT / "deploy/prometheus/rules.yaml").read_text())["groups"]
        # Their runbook_url is no URL before it is said where runbooks are.
        for each in [each for group in rule for each in group["rules"] if "alert" in each]:
            del each["annotations"]["runbook_url"]
        self.assertEqual(of_kind(objects("minimal"), "PrometheusRule")[0]["spec"]["groups"], rule)
        names = {each["alert"] for group in rule for each in group["rules"] if "alert" in each}
        changed = of_kind(objects("token"), "PrometheusRule")[0]["spec"]["groups"]
        alerts = [each for group in changed for each in group["rules"] if "alert" in each]
        self.assertEqual(names - {each["alert"] for each in alerts}, {"RingbackTierLate"})
        for each in alerts:
            url = each["annotations"]["runbook_url"]
            self.assertTrue(url.startswith("https://runbooks.example.org/"), url)
        files = {path.name: path.read_text().rstrip() for path in (ROOT / "deploy/grafana").glob("*.json")}
        self.assertGreaterEqual(len(files), 4)
        # Their links lead where the portal and the runbooks are, as far as the chart was told.
        led = [
            ("full", "http://127.0.0.1:8081", "https://portal.example.org"),
            ("token", "docs/runbooks/", "https://runbooks.example.org/"),
        ]
        for name, default, told in led:
            shown = {
                name: text.rstrip()
                for each in of_kind(objects(name), "ConfigMap")
                for name, text in each.get("data", {}).items()
            }
            self.assertEqual(shown, {name: text.replace(default, told) for name, text in files.items()})
            self.assertIn(told, shown["overview.json"])


if __name__ == "__main__":
    unittest.main()
