"""Every query of every dashboard, asked of a real Prometheus that scrapes a live `ringback up`."""

import json
import math
import os
import re
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
RINGBACK = os.environ["RINGBACK"]
# For everything that is waited for; a busy machine is slow.
PATIENCE = 120

# Webhooks and how their receivers answer: together they take every way that a delivery can end.
WEBHOOKS = {
    "good": [],
    "broken": ["--status", "503"],
    "gone": ["--status", "404"],
    "limited": [],
    "paused": [],
}
OPTIONS = {"limited": ["--rate-limit", "6"], "paused": ["--paused"]}
CONFIGURATION = {
    "SCHEDULE__TIERS": '["1s", "2s"]',
    "DISPATCHER__LANE_WAIT": "200ms",
    "METRICS__POLICY__ATTEMPTS": "2",
    "METRICS__POLICY__SILENCE": "1s",
    "METRICS__SNAPSHOT_INTERVAL": "1s",
}
PROMETHEUS = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: ringback
    static_configs: [{{targets: ["{target}", "{canary}"]}}]
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def eventually(what, look):
    """Waits until `look` returns something; its last complaint is told."""
    deadline = time.monotonic() + PATIENCE
    complaint = None
    while time.monotonic() < deadline:
        try:
            found = look()
            if found:
                return found
        except (OSError, urllib.error.URLError, AssertionError) as error:
            complaint = error
        time.sleep(0.3)
    raise AssertionError(f"not within {PATIENCE} s: {what}: {complaint}")


class Pipeline:
    """`ringback up`, receivers, events and Prometheus; all of it ends with it."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.running = []
        ports = {name: free_port() for name in ("ingest", "admin", "telemetry", "canary", "canary_telemetry", "prometheus")}
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
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()

    def said(self, name):
        return (self.folder / f"{name}.log").read_text()

    def ringback(self, *args):
        done = subprocess.run(
            [RINGBACK, *args],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"ringback {args}: {done.stderr}"
        return done.stdout

    def up(self):
        keys = {
            "INGEST__LISTEN": self.at["ingest"],
            "ADMIN__LISTEN": self.at["admin"],
            "TELEMETRY__LISTEN": self.at["telemetry"],
            **CONFIGURATION,
        }
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
        keys = {
            "CANARY__INGEST_URL": f"http://{self.at['ingest']}",
            "CANARY__ADMIN_URL": f"http://{self.at['admin']}",
            "CANARY__TOKEN_FILE": str(self.folder / "data/operator-token"),
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


def panels():
    """Dashboard and panel of each query."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield path.stem, panel, target


def as_asked(query):
    """With Grafana's variables filled in."""
    for name, value in [("$__rate_interval", "10s"), ("$__range", "30s"), ("$job", ".*")]:
        query = query.replace(name, value)
    return query


class Live(unittest.TestCase):
    def test_every_query_returns_series_and_the_books_balance(self):
        with tempfile.TemporaryDirectory() as folder:
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
                print(pipeline.said("up")[-4000:])
                print(pipeline.said("canary")[-4000:])
                raise
            finally:
                pipeline.stop()

    def every_query(self, pipeline):
        """All of them, while events come and receivers fail."""
        queries = {(name, panel["title"], target["expr"]) for name, panel, target in panels()}
        # This pipeline is on the local log: it has no clients of Kafka.
        queries = {each for each in queries if "ringback_kafka_" not in each[2]}
        self.assertGreater(len(queries), 60)

        def answered():
            missing = [each for each in queries if not pipeline.samples(as_asked(each[2]))]
            queries.intersection_update(missing)
            assert not missing, f"no series for {missing}"
            return True

        eventually("every panel has data", answered)
        # They would have data, too, if nobody looked.
        lagging = 'sum(ringback_lag_records{group="dispatcher.deferrals"}) > 0'
        eventually("something is seen waiting", lambda: pipeline.samples(lagging))

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


class Dashboards(unittest.TestCase):
    def test_each_explains_itself_and_leads_on(self):
        self.assertEqual(
            [path.stem for path in DASHBOARDS], ["delivery", "kafka", "overview", "webhooks"]
        )
        uids = set()
        for path in DASHBOARDS:
            with self.subTest(path.name):
                board = json.loads(path.read_text())
                uids.add(board["uid"])
                [text] = [panel for panel in board["panels"] if panel["type"] == "text"]
                self.assertGreater(len(text["options"]["content"]), 200)
                self.assertEqual(board["links"][0]["tags"], board["tags"])
                ids = [panel["id"] for panel in board["panels"]]
                self.assertEqual(len(ids), len(set(ids)))
        overview = (ROOT / "deploy/grafana/overview.json").read_text()
        for uid in uids - {"ringback-overview"}:
            self.assertIn(f"/d/{uid}", overview)

    def test_each_panel_has_a_description_and_a_source_that_can_be_chosen(self):
        for name, panel, target in panels():
            with self.subTest(name, panel=panel["title"]):
                self.assertTrue(panel["description"])
                self.assertEqual(target["datasource"]["uid"], "${datasource}")

    def test_they_ask_for_metrics_that_exist(self):
        page = (ROOT / "docs/metrics.md").read_text()
        for name, panel, target in panels():
            for metric in re.findall(r"\b(?:ringback|process)_\w+", target["expr"]):
                base = re.sub("_(bucket|count|sum)$", "", metric)
                with self.subTest(name, panel=panel["title"]):
                    self.assertIn(f"`{base}`", page)


if __name__ == "__main__":
    unittest.main()
