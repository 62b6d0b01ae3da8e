"""Alert rules: their syntax, each alert firing and resolving on a fault, and its runbook."""

import re
import subprocess
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RULES = ROOT / "deploy/prometheus/rules.yaml"


def groups():
    return yaml.safe_load(RULES.read_text())["groups"]


def alerts():
    """All alerts by name."""
    rules = [rule for group in groups() for rule in group["rules"]]
    return {rule["alert"]: rule for rule in rules if "alert" in rule}


def cases():
    return yaml.safe_load((HERE / "alerts.yaml").read_text())


def healthy():
    """An installation in which everything is in order."""
    return yaml.safe_load((HERE / "healthy.yaml").read_text())


# How the chart's PodMonitor tells two installations apart: by the namespace alone, or by the job alone.
NEIGHBOURS = [
    ({"namespace": "live", "job": "ringback"}, {"namespace": "staging", "job": "ringback"}),
    ({"namespace": "pbx", "job": "pbx/live"}, {"namespace": "pbx", "job": "pbx/staging"}),
]


def labelled(series, labels):
    """A series with further labels."""
    name, _, inside = series.partition("{")
    given = [inside.removesuffix("}")] if inside else []
    return name + "{" + ",".join(given + [f'{key}="{value}"' for key, value in labels.items()]) + "}"


def minutes(time):
    return int(time[:-1]) * {"m": 1, "h": 60}[time[-1]]


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


class Rules(unittest.TestCase):
    def test_prometheus_takes_them(self):
        done = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(RULES))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_each_alert_fires_and_resolves(self):
        known = alerts()
        # Who can fire for several reasons has a case of each: "NAME of one", "NAME of another".
        named = [(key.split()[0], case) for key, case in cases().items()]
        self.assertEqual(set(known), {name for name, _ in named})
        by_interval = {}
        for number, (name, case) in enumerate(named):
            tests = by_interval.setdefault(case.get("interval", "1m"), [])
            # Alone, as under systemd; and beside another one.
            tests.append(self.unit(name, known[name], case, {}, None))
            tests.append(self.unit(name, known[name], case, *NEIGHBOURS[number % len(NEIGHBOURS)]))
        # It uses one core.
        halves = [(interval, tests[half::2]) for interval, tests in by_interval.items() for half in (0, 1)]
        with ThreadPoolExecutor(2) as pool:
            tried = list(pool.map(lambda half: self.promtool(*half), halves))
        failed = [done.stdout + done.stderr for done in tried if done.returncode != 0]
        self.assertFalse(failed, "\n".join(failed))

    def promtool(self, interval, tests):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            whole = {
                "rule_files": [str(RULES.resolve())],
                "evaluation_interval": interval,
                # What is recorded is asked for by others.
                "group_eval_order": [group["name"] for group in groups()],
                "tests": tests,
            }
            yaml.safe_dump(whole, file, width=10_000)
            file.flush()
            return run("promtool", "test", "rules", file.name)

    def unit(self, name, rule, case, own, other):
        """A test of promtool: of an installation with its labels, alone or beside another one."""
        labels = {**rule["labels"], **case.get("labels", {}), **own, "alertname": name, "alertstate": "firing"}
        text = ", ".join(f'{key}="{value}"' for key, value in labels.items())
        fires = [{"labels": f"ALERTS{{{text}}}", "value": 1}]
        expected = {"silent": [], "fires": fires, "resolved": []}
        ends = max(minutes(case[at]) for at in expected if at in case)

        def asked(at, samples):
            # Of the other one no alert at all fires.
            beside = "".join(f', {key}="{value}"' for key, value in (other or {}).items())
            query = f'ALERTS{{alertname="{name}", alertstate="firing"}}'
            if other:
                query += f' or ALERTS{{alertstate="firing"{beside}}}'
            return {"expr": query, "eval_time": case[at], "exp_samples": samples}

        # YAML takes 0x60 for a number.
        self.assertTrue(all(isinstance(values, str) for values in case["series"].values()), name)
        series = {labelled(of, own): values for of, values in case["series"].items()}
        if other:
            for of, values in healthy().items():
                start, _, step = str(values).partition("+")
                series[labelled(of, {**other, "instance": "healthy"})] = f"{start}+{step or 0}x{ends}"
        return {
            "interval": case.get("interval", "1m"),
            "input_series": [{"series": of, "values": v} for of, v in series.items()],
            "promql_expr_test": [asked(at, samples) for at, samples in expected.items() if at in case],
        }

    def test_the_healthy_installation_has_every_metric(self):
        asked = set(re.findall(r"\bringback_\w+", RULES.read_text()))
        self.assertEqual(asked, {series.partition("{")[0] for series in healthy()})

    def test_who_does_without_a_part_is_not_alerted(self):
        """No ingest, where events come straight onto the topics; a canary that watches from elsewhere."""
        parts = {
            "direct": lambda of: "producer" not in of and "ingest" not in of,
            "outside": lambda of: "canary" in of,
        }
        series = []
        for job, has in parts.items():
            for of, values in filter(lambda pair: has(pair[0]), healthy().items()):
                start, _, step = str(values).partition("+")
                values = f"{start}+{step or 0}x60"
                series.append({"series": labelled(of, {"job": job, "instance": job}), "values": values})
        quiet = {"expr": "ALERTS", "eval_time": "50m", "exp_samples": []}
        test = {"interval": "1m", "input_series": series, "promql_expr_test": [quiet]}
        done = self.promtool("1m", [test])
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_nothing_is_compared_over_installations(self):
        """Every aggregation keeps what tells installations apart."""
        text = RULES.read_text()
        for found in re.finditer(r"\b(sum|min|max|count|group|avg)\b *(by \(([\w, ]*)\))?(?= *\()", text):
            kept = (found[3] or "").split(", ")
            with self.subTest(text[found.start() : found.start() + 80]):
                self.assertEqual(kept[:2], ["namespace", "job"])

    def test_annotations_say_what_they_can(self):
        known = cases()
        for name, rule in alerts().items():
            with self.subTest(name):
                notes = rule["annotations"]
                self.assertEqual(sorted(notes), ["description", "runbook_url", "summary"])
                self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
                used = set(re.findall(r"\$labels\.(\w+)", str(notes)))
                self.assertLessEqual(used, set(known[name]["labels"]))
                self.assertIn("fires", known[name])

    def test_each_alert_has_a_runbook_and_each_runbook_an_alert(self):
        folder = ROOT / "docs/runbooks"
        for name, rule in alerts().items():
            with self.subTest(name):
                self.assertEqual(rule["annotations"]["runbook_url"], f"docs/runbooks/{name}.md")
                page = (folder / f"{name}.md").read_text()
                for heading in (f"# {name}", "## What it means", "## Find out", "## Mend it"):
                    self.assertIn(f"{heading}\n", page)
        pages = {path.stem for path in folder.glob("*.md")} - {"README"}
        self.assertEqual(pages, set(alerts()))
        index = (folder / "README.md").read_text()
        for name in pages:
            self.assertIn(f"({name}.md)", index)

    def test_every_metric_asked_for_exists(self):
        names = set(re.findall(r"\bringback_\w+", RULES.read_text()))
        page = (ROOT / "docs/metrics.md").read_text()
        for name in names:
            base = re.sub("_(bucket|count|sum)$", "", name)
            self.assertIn(f"`{base}`", page, name)


class Prometheus(unittest.TestCase):
    def test_configurations(self):
        folder = ROOT / "deploy/prometheus"
        done = run("promtool", "check", "config", str(folder / "prometheus.yml"))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        done = run("amtool", "check-config", str(folder / "alertmanager.yml"))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
