"""Dashboards as Grafana takes them: what each says without data, where it leads, and its arithmetic."""

import json
import re
import subprocess
import tempfile
import unittest

import yaml

from boards import DASHBOARDS, ROOT, as_asked, dashboards, panels

# What answers an operator's questions at one glance, a column each.
GLANCE = ["Is it keeping up?", "Who is failing?", "What is waiting?", "Did we lose anything?"]
# What Grafana shows in a box without data has the colour of "well" unless a mapping says otherwise.
NOTHING = "null+nan"

OWNED = 'ringback_partitions_owned{job="a",instance="%s",group="g"}'
PARTITIONS = 'ringback_partitions{job="a",instance="%s",group="%s"}'
LOST = 'ringback_records_lost_total{job="a",instance="%s"}'
OLDEST = 'ringback_oldest_waiting_seconds{job="%s",group="dispatcher.events.cdr",instance="a"}'
ATTEMPTS = 'ringback_attempts_total{job="a",instance="a",outcome="%s"}'
ACCEPTED = 'ringback_events_accepted_total{job="a",instance="%s",family="cdr"}'
REQUESTS = 'ringback_http_requests_total{job="a",instance="a",server="ingest",status="%s"}'
VIOLATED = 'ringback_invariant_violations_total{job="a",instance="%s",invariant="DL1"}'
# Of the overview, asked after two hours for the last: what happens, the panel (and which of its queries),
# series (promtool's notation, a sample a minute), and what it says; None: that there is nobody to tell.
CASES = [
    ("a dispatcher finds a loss", 31, {LOST % "a": "0x90 7x40", OWNED % "a": "9x130"}, 7),
    # Before its first sample, so no increase shows it.
    ("one finds a loss upon its start", 31, {LOST % "a": "0x130", LOST % "b": "_x100 900x30", OWNED % "a": "9x130"}, 900),
    ("both at a time", 31, {LOST % "a": "1x90 3x40", LOST % "b": "_x100 900x30", OWNED % "a": "9x130"}, 902),
    ("it is gone since", 31, {LOST % "b": "_x80 900x9 _x40", OWNED % "b": "_x80 9x9 _x40"}, 900),
    ("it begins anew under its name", 31, {LOST % "a": "900x80 0x20 5x30", OWNED % "a": "9x130"}, 5),
    ("what was lost before is over", 31, {LOST % "a": "900x130", OWNED % "a": "9x130"}, 0),
    ("statistics are lost", 31, {LOST.replace('"a"', '"a",topic="attempts"', 1) % "a": "0x90 7x40", OWNED % "a": "9x130"}, 0),
    ("events are lost", 31, {LOST.replace('"a"', '"a",topic="events.cdr"', 1) % "a": "_x90 7x40", OWNED % "a": "9x130"}, 7),
    ("nothing is lost", 31, {LOST % "a": "0x130", OWNED % "a": "9x130"}, 0),
    ("nobody is there to tell", 31, {LOST % "a": "0x90 _x40", OWNED % "a": "9x90 _x40"}, None),
    ("an invariant is violated", 35, {VIOLATED % "a": "0x90 2x40", OWNED % "a": "9x130"}, 2),
    ("one is violated for the first time", 35, {VIOLATED % "a": "_x90 2x40", OWNED % "a": "9x130"}, 2),
    ("none is", 35, {OWNED % "a": "9x130"}, 0),
    ("the worst replica counts", 28, {OLDEST % "a": "80x130", OLDEST.replace('"a"', '"b"') % "a": "1x130"}, 80),
    ("a good value of before is not shown", 28, {OLDEST % "a": "1x100 _x30"}, None),
    ("another installation is not looked at", 28, {OLDEST % "a": "80x130", OLDEST % "staging": "900x130"}, 80),
    ("two share the partitions", 32, {OWNED % "a": "5x130", OWNED % "b": "4x130", PARTITIONS % ("a", "g"): "9x130", PARTITIONS % ("b", "g"): "9x130"}, 0),
    ("one of them dies", 32, {OWNED % "a": "5x130", OWNED % "b": "4x90 _x40", PARTITIONS % ("a", "g"): "9x130", PARTITIONS % ("b", "g"): "9x90 _x40"}, 4),
    # While some move, two may say that they have them.
    ("what two have does not hide what none has", 32, {OWNED % "a": "6x130", OWNED % "b": "6x130", PARTITIONS % ("a", "g"): "9x130", OWNED.replace('"g"', '"h"') % "a": "7x130", PARTITIONS % ("a", "h"): "9x130"}, 2),
    ("all attempts succeed", 33, {ATTEMPTS % "2xx": "0+60x130"}, 0),
    ("half of them fail", 33, {ATTEMPTS % "2xx": "0+60x130", ATTEMPTS % "5xx": "0+30x130", ATTEMPTS % "dns": "0+30x130"}, 0.5),
    ("none was made", 33, {ATTEMPTS % "2xx": "60x90 _x40"}, None),
    ("no request to the ingest fails", (12, 1), {REQUESTS % "202": "0+60x130"}, 0),
    ("a quarter of them fails for our own faults", (12, 1), {REQUESTS % "202": "0+45x130", REQUESTS % "503": "0+15x130"}, 0.25),
    ("events come in", 3, {ACCEPTED % "a": "0x59 0+10x70"}, 600),
    # With labels, a counter begins with what it has counted at the first scrape.
    ("another replica has taken some before its first scrape", 3, {ACCEPTED % "a": "0x130", ACCEPTED % "b": "_x100 500x30"}, 500),
    ("a replica begins anew", 3, {ACCEPTED % "a": "100x70 200x20 0x10 50x30"}, 150),
    ("no event comes in", 3, {'ringback_build_info{job="a"}': "1x130"}, 0),
]


class Arithmetic(unittest.TestCase):
    def test_the_overview_says_what_happens(self):
        asked = {}
        for panel in dashboards()["overview"]["panels"]:
            exprs = [target["expr"] for target in panel.get("targets", [])]
            asked |= {(panel["id"], number): expr for number, expr in enumerate(exprs)}
            asked |= {panel["id"]: expr for expr in exprs[:1]}
        tests = [self.unit(asked[panel], series, said) for _, panel, series, said in CASES]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump({"evaluation_interval": "1m", "tests": tests}, file, width=10_000)
            file.flush()
            done = subprocess.run(["promtool", "test", "rules", file.name], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def unit(self, query, series, said):
        """A test of promtool, in hundredths: it compares digit by digit, and one of these is a share."""
        samples = [] if said is None else [{"labels": "{}", "value": 100 * said}]
        rounded = f"round(100 * ({as_asked(query, job='a', time='1h', rate='5m')}))"
        return {
            "interval": "1m",
            "input_series": [{"series": of, "values": values} for of, values in series.items()],
            "promql_expr_test": [{"expr": rounded, "eval_time": "2h", "exp_samples": samples}],
        }


class Stats(unittest.TestCase):
    def stats(self):
        for name, panel, target in panels():
            if panel["type"] == "stat":
                yield name, panel, target

    def test_each_is_of_this_moment(self):
        for name, panel, target in self.stats():
            with self.subTest(name, panel=panel["title"]):
                self.assertEqual((target.get("instant"), target.get("range")), (True, False))

    def test_each_without_data_says_so_and_is_not_green(self):
        self.assertGreater(len(list(self.stats())), 20)
        for name, panel, _ in self.stats():
            with self.subTest(name, panel=panel["title"]):
                defaults = panel["fieldConfig"]["defaults"]
                self.assertRegex(defaults["noValue"], r"^No \w+")
                [mapping] = defaults["mappings"]
                self.assertEqual(mapping["options"]["match"], NOTHING)
                shown = mapping["options"]["result"]
                self.assertEqual(shown["text"], defaults["noValue"])
                self.assertIn(shown["color"], ["red", "orange"])

    def test_the_first_row_answers_the_questions(self):
        top = [panel for panel in dashboards()["overview"]["panels"] if panel["gridPos"]["y"] < 8]
        self.assertEqual([panel["type"] for panel in top], ["stat"] * 8)
        first = [panel["title"] for panel in top if panel["gridPos"]["y"] == 0]
        self.assertEqual([title[: title.index("?") + 1] for title in first], GLANCE)
        for panel in top:
            with self.subTest(panel["title"]):
                steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
                self.assertEqual(steps[0], {"color": "green", "value": None})
                self.assertIn(steps[-1]["color"], ["red", "orange"])
                self.assertTrue(panel["links"])


class Dashboards(unittest.TestCase):
    def test_each_explains_itself_and_leads_on(self):
        self.assertEqual(
            [path.stem for path in DASHBOARDS], ["delivery", "kafka", "overview", "webhooks"]
        )
        uids = set()
        for name, board in dashboards().items():
            with self.subTest(name):
                uids.add(board["uid"])
                [text] = [panel for panel in board["panels"] if panel["type"] == "text"]
                self.assertGreater(len(text["options"]["content"]), 200)
                self.assertEqual(board["links"][0]["tags"], board["tags"])
                ids = [panel["id"] for panel in board["panels"]]
                self.assertEqual(len(ids), len(set(ids)))
        overview = (ROOT / "deploy/grafana/overview.json").read_text()
        for uid in uids - {"ringback-overview"}:
            self.assertIn(f"/d/{uid}", overview)

    def test_links_lead_to_the_portal_and_to_runbooks_that_exist(self):
        routes = (ROOT / "crates/admin/portal/js/routes.js").read_text()
        for name, board in dashboards().items():
            with self.subTest(name):
                given = {variable["name"]: variable["query"] for variable in board["templating"]["list"]}
                # As alerts have it; where somebody else publishes them is theirs to say.
                self.assertEqual(given["runbooks"], "docs/runbooks/")
                self.assertRegex(given["portal"], r"^https?://[^/]+$")
                text = json.dumps(board)
                used = re.findall(r"\$\{runbooks:raw\}(\w+\.md)", text)
                self.assertIn("README.md", used)
                for page in used:
                    self.assertTrue((ROOT / "docs/runbooks" / page).exists(), page)
                for path in re.findall(r"\$\{portal:raw\}(/portal/\w+)", text):
                    self.assertIn(f'"{path}"', routes)
        self.assertIn("${portal:raw}/portal/operations", json.dumps(dashboards()["webhooks"]))

    def test_each_panel_has_a_description_and_a_source_that_can_be_chosen(self):
        for name, panel, target in panels():
            with self.subTest(name, panel=panel["title"]):
                self.assertTrue(panel["description"])
                self.assertEqual(target["datasource"]["uid"], "${datasource}")

    def test_each_query_keeps_to_the_installation_chosen(self):
        for name, panel, target in panels():
            with self.subTest(name, panel=panel["title"]):
                asked = re.findall(r"\b(?:ringback[_:]|process_)[\w:]+(\{[^}]*\})?", target["expr"])
                self.assertTrue(asked)
                for matchers in asked:
                    self.assertIn('job=~"$job"', matchers)

    def test_they_ask_for_metrics_that_exist(self):
        page = (ROOT / "docs/metrics.md").read_text()
        for name, panel, target in panels():
            for metric in re.findall(r"\b(?:ringback|process)_\w+", target["expr"]):
                base = re.sub("_(bucket|count|sum)$", "", metric)
                with self.subTest(name, panel=panel["title"]):
                    self.assertIn(f"`{base}`", page)


if __name__ == "__main__":
    unittest.main()
