"""Every query of every dashboard, asked of a real Prometheus that scrapes a live `ringback up`.

On Kafka; where there is none to be had (`KAFKA` names the program that runs it), on the local log and
without the panels about Kafka.
"""

import json
import math
import os
import re
import subprocess
import tempfile
import unittest
import urllib.parse
from pathlib import Path

from boards import ROOT, as_asked, panels
from live import PATIENCE, eventually, free_pair, free_port, get

RINGBACK = os.environ["RINGBACK"]
KAFKA = os.environ.get("KAFKA")
# The status of commands that may work later.
TRY_AGAIN = 75

# Webhooks and how their receivers answer: together they take every way that a delivery can end.
WEBHOOKS = {
    # So slow that something is in flight whenever Prometheus looks.
    "good": ["--delay", "300ms"],
    "broken": ["--status", "503"],
    "gone": ["--status", "404"],
    "limited": [],
    "paused": [],
}
OPTIONS = {"limited": ["--rate-limit", "6"], "paused": ["--paused"]}
CONFIGURATION = {
    "SCHEDULE__TIERS": '["1s", "2s"]',
    "DISPATCHER__LANE_WAIT": "200ms",
    # Late enough that Prometheus sees attempts fail, early enough that it sees what is parked then.
    "METRICS__POLICY__ATTEMPTS": "20",
    "METRICS__POLICY__SILENCE": "6s",
    "METRICS__SNAPSHOT_INTERVAL": "1s",
}
ON_KAFKA = {
    "LOG__ENGINE": "kafka",
    "TOPICS__REPLICATION": "1",
    # What `ringback up` makes and opens for itself on the local log alone.
    "DISPATCHER__ALLOW_NETWORKS": '["127.0.0.0/8"]',
    "SECRETS__PRIMARY": "test",
    "SECRETS__KEYS__TEST": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "ADMIN__OPERATOR_TOKEN": "rbo_of_the_test_of_dashboards_0123456789",
}
# What says 0 here, or may, since nothing of the kind happens. All other queries must say more at some
# time: many say 0 just as well when they ask for what does not exist.
QUIET = [
    "ringback_appends_failed_total",
    "ringback_appends_retried_total",
    "ringback_breakers_open",
    "ringback_commit_failures_total",
    "ringback_config_records_unreadable",
    "ringback_invariant_violations_total",
    "ringback_kafka_connections_total",
    "ringback_kafka_records_queued",
    "ringback_kafka_throttled_seconds",
    "ringback_lanes_saturated",
    "ringback_partitions{",
    "ringback_projection_errors_total",
    "ringback_projection_lag_records",
    "ringback_projection_records_lost_total",
    "ringback_projection_sampled_out_total",
    "ringback_rebalances_total",
    "ringback_records_lost_total",
    "ringback_results_late_total",
    "ringback_topics_differing",
    "ringback:",
    'status=~"5.."',
]
PROMETHEUS = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: ringback
    static_configs: [{{targets: ["{target}", "{canary}"]}}]
"""


class Pipeline:
    """`ringback up`, receivers, events and Prometheus; all of it ends with it."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.running = []
        ports = {name: free_port() for name in ("ingest", "admin", "telemetry", "canary", "canary_telemetry", "prometheus")}
        ports["kafka"] = free_pair()
        self.at = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("RINGBACK_")},
            "RINGBACK_LOG__LOCAL__DIR": str(self.folder / "data"),
            "RINGBACK_ADMIN_URL": f"http://{self.at['admin']}",
            "RINGBACK_INGEST_URL": f"http://{self.at['ingest']}",
        }

    def start(self, name, command, **environment):
        with (self.folder / f"{name}.log").open("w") as output:
            process = subprocess.Popen(
                command,
                env={**self.environment, **environment},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.running.append(process)
        return process

    def stop(self):
        # In this order: what drains needs its log.
        for process in reversed(self.running):
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()

    def said(self, name):
        log = self.folder / f"{name}.log"
        return log.read_text() if log.exists() else ""

    def ringback(self, *args):
        def tried():
            done = subprocess.run(
                [RINGBACK, *args],
                env=self.environment,
                cwd=self.folder,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            # A broker that has just started may be slow.
            assert done.returncode != TRY_AGAIN, done.stderr
            return done

        done = eventually(f"ringback {args} is answered", tried)
        assert done.returncode == 0, f"ringback {args}: {done.stderr}"
        return done.stdout

    def kafka(self):
        """Its topics are made by whoever starts first."""
        port = self.at["kafka"].rpartition(":")[2]
        self.start("kafka", [KAFKA, "run", "--port", port, "--dir", str(self.folder / "kafka")])
        eventually("Kafka is ready", lambda: self.at["kafka"] in self.said("kafka"))

    def up(self):
        keys = {
            "INGEST__LISTEN": self.at["ingest"],
            "ADMIN__LISTEN": self.at["admin"],
            "TELEMETRY__LISTEN": self.at["telemetry"],
            **CONFIGURATION,
        }
        if KAFKA:
            self.kafka()
            keys |= ON_KAFKA | {"LOG__KAFKA__BOOTSTRAP": self.at["kafka"]}
            self.environment["RINGBACK_OPERATOR_TOKEN"] = keys["ADMIN__OPERATOR_TOKEN"]
        self.start("up", [RINGBACK, "up"], **{f"RINGBACK_{key}": value for key, value in keys.items()})
        eventually("ringback up is ready", lambda: get(f"http://{self.at['telemetry']}/readyz"))
        self.ringback("tenant", "add", "acme")
        for name, behaviour in WEBHOOKS.items():
            port = free_port()
            listen = [RINGBACK, "listen", "--quiet", "--listen", f"127.0.0.1:{port}", *behaviour]
            self.start(name, listen)
            url = f"http://127.0.0.1:{port}/{name}"
            options = ["--subscribe", "cdr.*", "--subscribe", "call.*", *OPTIONS.get(name, [])]
            self.ringback("webhook", "add", "acme", name, "--url", url, *options)
        # The token goes by the environment, never by an argument.
        shown = self.ringback("token", "add", "--tenant", "acme")
        self.environment["RINGBACK_TOKEN"] = re.search(r"\brb[a-z]*_\w+", shown)[0]

    def canary(self):
        """`ringback canary`, a process of its own."""
        token = self.folder / "data/operator-token"
        if KAFKA:
            token = self.folder / "operator-token"
            token.write_text(ON_KAFKA["ADMIN__OPERATOR_TOKEN"])
            token.chmod(0o600)
        keys = {
            "CANARY__INGEST_URL": f"http://{self.at['ingest']}",
            "CANARY__ADMIN_URL": f"http://{self.at['admin']}",
            "CANARY__TOKEN_FILE": str(token),
            "CANARY__LISTEN": self.at["canary"],
            "CANARY__EVERY": "1s",
            "TELEMETRY__LISTEN": self.at["canary_telemetry"],
        }
        command = [RINGBACK, "canary"]
        self.watching = self.start(
            "canary", command, **{f"RINGBACK_{key}": value for key, value in keys.items()}
        )
        ready = f"http://{self.at['canary_telemetry']}/readyz"
        eventually("the canary is ready", lambda: get(ready))

    def send(self):
        """Events for half a minute or so, in the background."""
        lines = self.folder / "events.jsonl"
        types = ["cdr.completed", "call.started", "extension.status"]
        with lines.open("w") as file:
            for number in range(300):
                event = {"type": types[number % 3], "data": {"number": number}}
                file.write(json.dumps(event) + "\n")
        return self.start("send", [RINGBACK, "send", "--rate", "15", "--batch", "5", str(lines)])

    def prometheus(self):
        config = self.folder / "prometheus.yml"
        rules = json.dumps(str((ROOT / "deploy/prometheus/rules.yaml").resolve()))
        config.write_text(PROMETHEUS.format(rules=rules, target=self.at["telemetry"], canary=self.at["canary_telemetry"]))
        listen = f"--web.listen-address={self.at['prometheus']}"
        data = f"--storage.tsdb.path={self.folder / 'prometheus'}"
        self.start("prometheus", ["prometheus", f"--config.file={config}", data, listen])
        eventually("Prometheus is ready", lambda: get(f"http://{self.at['prometheus']}/-/ready"))

    def samples(self, query):
        """What Prometheus answers, without what is no number."""
        text = get(f"http://{self.at['prometheus']}/api/v1/query?query={urllib.parse.quote(query)}")
        result = json.loads(text)["data"]["result"]
        values = [float(each["value"][1]) for each in result]
        return [value for value in values if not math.isnan(value)]


def parts(query):
    """It with each word alone of those that a label may be; a misspelt one hides behind the others."""
    for matcher in re.finditer(r'(\w+)=~"(\w+(?:\|\w+)+)"', query):
        for word in matcher[2].split("|"):
            yield query.replace(matcher[0], f'{matcher[1]}="{word}"')


class Live(unittest.TestCase):
    def test_every_query_returns_series_and_the_books_balance(self):
        # A broker that is killed may still write for a moment.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            pipeline = Pipeline(folder)
            try:
                pipeline.up()
                pipeline.canary()
                pipeline.prometheus()
                sending = pipeline.send()
                self.every_query(pipeline)
                self.assertEqual(sending.wait(timeout=PATIENCE), 0, pipeline.said("send"))
                pipeline.watching.terminate()
                self.assertEqual(pipeline.watching.wait(timeout=PATIENCE), 0, pipeline.said("canary"))
                self.books(pipeline)
            except Exception:
                for log in ("kafka", "up", "canary"):
                    print(pipeline.said(log)[-4000:])
                raise
            finally:
                pipeline.stop()

    def every_query(self, pipeline):
        """All of them, while events come and receivers fail."""
        wanted = {}
        for name, panel, target in panels():
            asked = as_asked(target["expr"])
            if "ringback_kafka_" in asked and not KAFKA:
                continue
            wanted[name, panel["title"], asked] = any(quiet in asked for quiet in QUIET)
            for part in parts(asked):
                wanted[name, panel["title"], part] = True
        self.assertGreater(len(wanted), 80)

        def answered():
            for each, may_be_zero in list(wanted.items()):
                samples = pipeline.samples(each[2])
                if samples and (may_be_zero or max(samples) > 0):
                    del wanted[each]
            assert not wanted, f"nothing, or nothing but 0, for {list(wanted)}"
            return True

        eventually("every panel has data", answered)

    def books(self, pipeline):
        """As the first row says: what was begun was delivered, was parked, or waits."""

        def balanced():
            text = get(f"http://{pipeline.at['telemetry']}/metrics")

            def total(name):
                rows = re.findall(rf"^{name}(?:{{.*}})? ([0-9.e+]+)$", text, re.MULTILINE)
                return sum(float(value) for value in rows)

            begun = total("ringback_deliveries_begun_total")
            ended = total("ringback_deliveries_delivered_total"), total("ringback_deliveries_parked_total")
            waiting = total("ringback_lag_records")
            # Of 300 events, 200 go to five webhooks; webhook.* notices to none; each of the canary's to its.
            of_canary = total("ringback_events_accepted_total") - 300
            assert of_canary > 0, "the canary has sent nothing"
            assert begun == 1000 + of_canary, f"begun {begun}, {of_canary} of the canary"
            assert begun == sum(ended) + waiting, f"{begun} begun, {ended} ended, {waiting} waiting"
            return True

        eventually("the books balance", balanced)


if __name__ == "__main__":
    unittest.main()
