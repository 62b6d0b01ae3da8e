"""The image as it is shipped: what is in it, and that it runs with nothing else. As root: it is unpacked and
entered by chroot.

`cargo xtask image` sets IMAGE (a docker-archive) and VERSION.
"""

import json
import os
import socket
import stat
import subprocess
import tarfile
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

USER = 10001
PROGRAM = "/usr/bin/ringback"
OWN = "var/lib/ringback"


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="ringback-image-")
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name, "root")
        cls.root.mkdir()
        with tarfile.open(os.environ["IMAGE"]) as archive:
            [manifest] = json.load(archive.extractfile("manifest.json"))
            cls.config = json.load(archive.extractfile(manifest["Config"]))["config"]
            for layer in manifest["Layers"]:
                unpack = ["tar", "--extract", "--same-permissions", "--same-owner", "--directory", cls.root]
                subprocess.run(unpack, input=archive.extractfile(layer).read(), check=True)

    def start(self, *arguments, **options):
        """As Kubernetes would: its own root and user, nothing in the environment."""

        def enter():
            os.chroot(self.root)
            os.chdir(self.config["WorkingDir"])
            os.setgroups([])
            os.setgid(USER)
            os.setuid(USER)

        said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([PROGRAM, *arguments], env={}, preexec_fn=enter, **said, **options)

    def said(self, *arguments):
        with self.start(*arguments) as process:
            said, _ = process.communicate(timeout=60)
            return process.returncode, said

    def files(self):
        return {str(path.relative_to(self.root)): path for path in self.root.rglob("*")}

    def test_it_runs_as_a_user_without_rights(self):
        self.assertEqual(self.config["User"], f"{USER}:{USER}")
        self.assertEqual(self.config["Entrypoint"], [PROGRAM])
        for name, path in self.files().items():
            found = path.lstat()
            own = name == OWN
            self.assertEqual(found.st_uid, USER if own else 0, name)
            self.assertFalse(found.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH), name)

    def test_it_holds_the_program_and_what_that_links(self):
        files = [name for name, path in self.files().items() if path.is_file()]
        programs = [name for name in files if "/bin/" in name or name.startswith("bin/")]
        self.assertEqual(programs, ["usr/bin/ringback"])
        others = [name for name in files if name.split("/")[0] not in ("lib", "lib64", "usr", "etc")]
        # What scanners read: whose libraries these are.
        self.assertIn("var/lib/dpkg/status.d/libc6", others)
        self.assertTrue(all(name.startswith("var/lib/dpkg/status.d/") for name in others), others)
        authorities = (self.root / "etc/ssl/certs/ca-certificates.crt").read_text()
        self.assertGreater(authorities.count("BEGIN CERTIFICATE"), 50)

    def test_labels_say_what_it_is(self):
        labels = self.config["Labels"]
        label = lambda name: labels[f"org.opencontainers.image.{name}"]
        self.assertEqual(label("version"), os.environ["VERSION"])
        self.assertEqual(label("licenses"), "Apache-2.0")
        self.assertRegex(label("revision"), "^[0-9a-f]{40}$")
        self.assertEqual(self.said("--version"), (0, f"ringback {os.environ['VERSION']}\n"))

    def test_bill_of_materials_has_what_is_built_in_and_nothing_else(self):
        bill = json.loads((self.root / "usr/share/doc/ringback/ringback.cdx.json").read_text())
        self.assertEqual(bill["bomFormat"], "CycloneDX")
        parts = {part["name"]: part for part in bill["components"]}
        for name in ["rdkafka-sys", "openssl-src", "libsqlite3-sys", "rustls", "tokio", "ringback-core"]:
            self.assertIn(name, parts)
        for name in ["proptest", "stateright", "ringback-tests"]:
            self.assertNotIn(name, parts)
        for name, part in parts.items():
            self.assertTrue(part["version"], name)
            self.assertTrue(part.get("licenses") or name.startswith("ringback"), name)

    def test_wrong_configuration_is_told(self):
        code, said = self.said("dispatcher")
        self.assertEqual(code, 64, said)
        self.assertIn('log.engine = "kafka"', said)

    def test_the_whole_pipeline_starts_on_the_local_log_and_drains(self):
        ports = {part: free() for part in ["ingest", "admin", "telemetry"]}
        settings = [f"--set={part}.listen=127.0.0.1:{port}" for part, port in ports.items()]
        began = time.monotonic()
        process = self.start("up", *settings)
        try:
            while not answers(f"http://127.0.0.1:{ports['telemetry']}/readyz"):
                if process.poll() is not None or time.monotonic() > began + 60:
                    process.kill()
                    self.fail(f"it does not get ready:\n{process.communicate()[0]}")
                time.sleep(0.005)
            print(f"figure image.start_ms {(time.monotonic() - began) * 1000:.0f} ms")
            self.assertTrue(answers(f"http://127.0.0.1:{ports['admin']}/v1/openapi.json"))
            process.terminate()
            said, _ = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 0, said)
        finally:
            process.kill()
            process.wait()


def free():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    unittest.main()
