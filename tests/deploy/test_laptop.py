"""deploy/compose.yaml: what the specification's own library makes of it fits the program, and what it mounts
is there.

`cargo xtask test` sets COMPOSE, the path of what tests/compose builds, and RINGBACK.
"""

import json
import os
import subprocess
import tempfile
import unittest
from functools import cache
from pathlib import Path

import schema
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy/compose.yaml"
NEEDED = {"RINGBACK_KEY": "a2V5IG9mIHRoZSB0ZXN0LCAzMiBieXRlcyBsb25nISE=", "RINGBACK_OPERATOR_TOKEN": "t" * 32}


def run(*command, **variables):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=variables)


@cache
def services():
    done = run(os.environ["COMPOSE"], str(FILE), **NEEDED)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["services"]


def ours():
    return {name: one for name, one in services().items() if "build" in one}


def mounted(service, target):
    """The file that a service has there."""
    volumes = services()[service]["volumes"]
    return Path(next(one["source"] for one in volumes if one["target"] == target))


@unittest.skipUnless("COMPOSE" in os.environ, "no Go to build the reader of compose files")
class Laptop(unittest.TestCase):
    def test_it_says_which_variables_it_needs(self):
        for name in NEEDED:
            with self.subTest(name):
                others = {key: value for key, value in NEEDED.items() if key != name}
                done = run(os.environ["COMPOSE"], str(FILE), **others)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(f"{name} is missing a value: see the first lines", done.stderr)
                self.assertIn(f"#   {name}=", FILE.read_text())

    def test_components_run_with_a_configuration_without_mistakes(self):
        commands = {one["command"][0] for one in ours().values()}
        self.assertEqual(
            commands, {"doctor", "producer", "dispatcher", "metrics", "admin", "canary"}
        )
        for name, one in ours().items():
            with self.subTest(name):
                ringback = os.environ["RINGBACK"]
                done = run(ringback, *one["command"], "--help")
                self.assertEqual(done.returncode, 0, done.stderr)
                with tempfile.TemporaryDirectory() as folder:
                    file = Path(folder, "ringback.toml")
                    file.touch()
                    done = run(ringback, "config", "--config", str(file), **one["environment"])
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn('bootstrap = "kafka:9092"', done.stdout)

    def test_components_may_do_little_and_end_in_time(self):
        drain = int(schema.default("dispatcher.drain").removesuffix("s"))
        for name, one in ours().items():
            with self.subTest(name):
                self.assertTrue(one["read_only"])
                self.assertEqual(one["cap_drop"], ["ALL"])
                self.assertEqual(one["stop_grace_period"], "1m0s")
        self.assertGreaterEqual(60, drain + 30)

    def test_only_this_machine_reaches_it_and_images_have_versions(self):
        for name, one in services().items():
            with self.subTest(name):
                for port in one.get("ports", []):
                    self.assertEqual(port["host_ip"], "127.0.0.1")
                _, _, tag = one["image"].partition(":")
                self.assertRegex(tag, "[0-9]")

    def test_what_is_mounted_is_there_and_is_right(self):
        for name, one in services().items():
            for volume in one.get("volumes", []):
                if volume["type"] == "bind":
                    self.assertTrue(Path(volume["source"]).exists(), f"{name}: {volume['source']}")
        done = run("amtool", "check-config", str(mounted("alertmanager", "/etc/alertmanager/alertmanager.yml")), **os.environ)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        # Side by side, as in the container.
        with tempfile.TemporaryDirectory() as folder:
            for target in ["/etc/prometheus/prometheus.yml", "/etc/prometheus/rules.yaml"]:
                Path(folder, Path(target).name).write_text(mounted("prometheus", target).read_text())
            done = run("promtool", "check", "config", str(Path(folder, "prometheus.yml")), **os.environ)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_each_component_is_scraped_and_each_name_is_a_service(self):
        prometheus = yaml.safe_load(mounted("prometheus", "/etc/prometheus/prometheus.yml").read_text())
        found = prometheus["scrape_configs"][0]["dns_sd_configs"][0]
        self.assertEqual(set(found["names"]), set(ours()) - {"topics"})
        port = ours()["dispatcher"]["environment"]["RINGBACK_TELEMETRY__LISTEN"].rpartition(":")[2]
        self.assertEqual(str(found["port"]), port)
        managers = prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
        sources = yaml.safe_load(
            mounted("grafana", "/etc/grafana/provisioning/datasources/ringback.yaml").read_text()
        )
        for address in [*managers, *(one["url"].removeprefix("http://") for one in sources["datasources"])]:
            self.assertIn(address.partition(":")[0], services())

    def test_grafana_finds_the_dashboards(self):
        text = mounted("grafana", "/etc/grafana/provisioning/dashboards/ringback.yaml").read_text()
        path = yaml.safe_load(text)["providers"][0]["options"]["path"]
        self.assertTrue(list(mounted("grafana", path).glob("*.json")))


if __name__ == "__main__":
    unittest.main()
