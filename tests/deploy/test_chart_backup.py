"""docs/backup.md: its commands and its CronJob, with the program and beside the chart."""

import json
import os
import re
import stat
import subprocess
import tempfile
import unittest
from pathlib import Path

import kubernetes_validate
import yaml

from chart import CHART, KUBERNETES, RINGBACK, ROOT, one, rendered
from live import PATIENCE, eventually, free_port, get

PAGE = (ROOT / "docs/backup.md").read_text()
# As the page has it.
SECRETS = {("ringback-backup", "passphrase"): "correct horse battery staple"}


def fenced(language, beginning):
    """The one block of the page that begins like this."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    [found] = [block for block in blocks if block.startswith(beginning)]
    return found


def cron_job():
    return yaml.safe_load(fenced("yaml", "apiVersion: batch/v1\n"))


def pod_of(job):
    return job["spec"]["jobTemplate"]["spec"]["template"]["spec"]


class CronJob(unittest.TestCase):
    def test_kubernetes_takes_it(self):
        for version in KUBERNETES:
            kubernetes_validate.validate(cron_job(), version, strict=True)

    def test_it_fits_what_the_chart_makes(self):
        job, pod = cron_job(), pod_of(cron_job())
        [container] = pod["containers"]
        installed = re.search(r"^helm install (\S+) .*--namespace (\S+)", (ROOT / "docs/kubernetes.md").read_text(), re.MULTILINE)
        # `rendered` calls its release otherwise.
        found = rendered(over={"fullnameOverride": installed[1]})
        service = one(found, "Service", "admin")
        given = {each["name"]: each for each in container["env"]}
        self.assertEqual(given["RINGBACK_ADMIN_URL"]["value"], f"http://{service['metadata']['name']}")
        self.assertEqual(service["spec"]["ports"][0]["port"], 80)
        self.assertEqual(job["metadata"]["namespace"], installed[2])
        token = given["RINGBACK_OPERATOR_TOKEN"]["valueFrom"]["secretKeyRef"]
        admin = one(found, "Deployment", "admin")["spec"]["template"]["spec"]
        [secret] = [each["secret"] for each in admin["volumes"] if each["name"] == "operator-token"]
        self.assertEqual(token["name"], secret["secretName"])
        self.assertEqual(token["key"], yaml.safe_load((CHART / "values.yaml").read_text())["secrets"]["operatorToken"]["key"])
        version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
        self.assertTrue(container["image"].endswith(f":{version}"))
        # No pod may do more than those of the chart.
        self.assertEqual(container["securityContext"], admin["containers"][0]["securityContext"])
        for name, value in pod["securityContext"].items():
            self.assertEqual(admin["securityContext"][name], value, name)


class Commands(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.at = Path(cls.folder.name)
        ports = {name: free_port() for name in ("INGEST", "ADMIN", "TELEMETRY")}
        listen = {f"RINGBACK_{name}__LISTEN": f"127.0.0.1:{port}" for name, port in ports.items()}
        cls.environment = {key: value for key, value in os.environ.items() if not key.startswith("RINGBACK_")}
        cls.data = cls.at / "var/lib/ringback"
        with (cls.at / "up.log").open("w") as output:
            up = subprocess.Popen(
                [RINGBACK, "up"],
                env={**cls.environment, **listen, "RINGBACK_LOG__LOCAL__DIR": str(cls.data)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        cls.addClassCleanup(up.wait, PATIENCE)
        cls.addClassCleanup(up.terminate)
        cls.admin = f"http://127.0.0.1:{ports['ADMIN']}"
        eventually("ringback up is ready", lambda: get(f"http://127.0.0.1:{ports['TELEMETRY']}/readyz"))
        # `ringback` in scripts is the one under test.
        (cls.at / "bin").mkdir()
        (cls.at / "bin/ringback").symlink_to(RINGBACK)
        cls.environment["PATH"] = f"{cls.at / 'bin'}:{cls.environment['PATH']}"
        cls.environment["RINGBACK_ADMIN_URL"] = cls.admin

    def run_here(self, command, **environment):
        return subprocess.run(
            command, env={**self.environment, **environment}, cwd=self.at, capture_output=True, text=True, timeout=PATIENCE
        )

    def is_export(self, path):
        self.assertIn("tenants", json.loads(path.read_text()))
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)

    def test_the_command_can_be_run_again_and_restored(self):
        command = fenced("sh", "RINGBACK_PASSPHRASE=… ringback export").replace("…", "'correct horse battery'")
        for _ in range(2):
            done = self.run_here(["sh", "-euc", command + "sleep 1"], RINGBACK_LOG__LOCAL__DIR=str(self.data))
            self.assertEqual(done.returncode, 0, done.stderr)
        first, second = sorted(self.at.glob("configuration-*.json"))
        self.is_export(second)
        restore = fenced("sh", "RINGBACK_PASSPHRASE=… ringback import")
        [named] = set(re.findall(r"configuration-[\d-]+\.json", restore))
        self.assertEqual(re.sub(r"\d", "0", named), re.sub(r"\d", "0", first.name))
        restore = restore.replace(named, first.name).replace("…", "'correct horse battery'")
        done = self.run_here(["sh", "-euc", restore], RINGBACK_LOG__LOCAL__DIR=str(self.data))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_nightly_script_writes_and_removes_what_is_old(self):
        script = fenced("sh", "#!/bin/sh\n")
        for path in ("/var/lib/ringback", "/var/backups/ringback", "/etc/ringback"):
            self.assertIn(path, script)
            script = script.replace(path, str(self.at / path[1:]))
        backups = self.at / "var/backups/ringback"
        backups.mkdir(parents=True)
        (self.at / "etc/ringback").mkdir(parents=True)
        (self.at / "etc/ringback/backup-passphrase").write_text("correct horse battery\n")
        old = backups / "configuration-2001-01-01.json"
        old.write_text("{}")
        os.utime(old, (0, 0))
        file = self.at / "ringback-export"
        file.write_text(script)
        file.chmod(0o700)
        done = self.run_here([str(file)])
        self.assertEqual(done.returncode, 0, done.stderr)
        [made] = backups.iterdir()
        self.is_export(made)
        # Another run on that day leaves it alone.
        self.assertNotEqual(self.run_here([str(file)]).returncode, 0)
        self.is_export(made)

    def test_what_the_pods_of_the_cron_job_run(self):
        [container] = pod_of(cron_job())["containers"]
        [mount] = container["volumeMounts"]
        folder = self.at / "claim"
        folder.mkdir()
        secrets = SECRETS | {("ringback-operator", "operator-token"): (self.data / "operator-token").read_text().strip()}
        for pod in ("ringback-backup-29387657-x7k2p", "ringback-backup-29389097-q4m8d"):
            environment = {}
            for each in container["env"]:
                source = each.get("valueFrom", {})
                if "secretKeyRef" in source:
                    reference = source["secretKeyRef"]
                    environment[each["name"]] = secrets[reference["name"], reference["key"]]
                elif "fieldRef" in source:
                    self.assertEqual(source["fieldRef"]["fieldPath"], "metadata.name")
                    environment[each["name"]] = pod
                else:
                    environment[each["name"]] = each["value"]
            args = [re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], arg) for arg in container["args"]]
            args = [arg.replace(mount["mountPath"], str(folder)) for arg in args]
            # The Service leads to the administration.
            done = self.run_here([RINGBACK, *args], **environment | {"RINGBACK_ADMIN_URL": self.admin})
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(list(folder.iterdir())), 2)
        for made in folder.iterdir():
            self.is_export(made)


if __name__ == "__main__":
    unittest.main()
