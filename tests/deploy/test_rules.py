"""Alert rules: their syntax, each alert firing and resolving on a fault, and its runbook."""

import re
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RULES = ROOT / "deploy/prometheus/rules.yaml"


def alerts():
    """All alerts by name."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    return {rule["alert"]: rule for rule in rules if "alert" in rule}


def cases():
    return yaml.safe_load((HERE / "alerts.yaml").read_text())


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


class Rules(unittest.TestCase):
    def test_prometheus_takes_them(self):
        done = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(RULES))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_each_alert_fires_and_resolves(self):
        known = alerts()
        # Who can fire for several reasons has a case of each: "NAME of one", "NAME of another".
        tried = [(key.split()[0], case) for key, case in cases().items()]
        self.assertEqual(set(known), {name for name, _ in tried})
        tests = [self.unit(name, known[name], case) for name, case in tried]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            whole = {"rule_files": [str(RULES.resolve())], "evaluation_interval": "1m", "tests": tests}
            yaml.safe_dump(whole, file, width=10_000)
            file.flush()
            done = run("promtool", "test", "rules", file.name)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def unit(self, name, rule, case):
        """A test of promtool."""
        labels = {**rule["labels"], **case["labels"], "alertname": name, "alertstate": "firing"}
        text = ", ".join(f'{key}="{value}"' for key, value in labels.items())

        def asked(at, samples):
            query = f'ALERTS{{alertname="{name}", alertstate="firing"}}'
            return {"expr": query, "eval_time": case[at], "exp_samples": samples}

        return {
            "interval": "1m",
            "input_series": [{"series": of, "values": str(v)} for of, v in case["series"].items()],
            "promql_expr_test": [
                asked("silent", []),
                asked("fires", [{"labels": f"ALERTS{{{text}}}", "value": 1}]),
                asked("resolved", []),
            ],
        }

    def test_annotations_say_what_they_can(self):
        known = cases()
        for name, rule in alerts().items():
            with self.subTest(name):
                notes = rule["annotations"]
                self.assertEqual(sorted(notes), ["description", "runbook_url", "summary"])
                self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
                used = set(re.findall(r"\$labels\.(\w+)", str(notes)))
                self.assertLessEqual(used, set(known[name]["labels"]))

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
