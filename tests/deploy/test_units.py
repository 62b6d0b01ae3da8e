"""The systemd units: systemd takes them, they are hardened, and they fit the program."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import schema

ROOT = Path(__file__).resolve().parents[2]
UNITS = ["ringback.service", "ringback@.service"]
# The worst exposure that `systemd-analyze security` may find, of 100.
EXPOSURE_MAX = 20


def text_of(unit):
    return (ROOT / "deploy/systemd" / unit).read_text()


def settings(unit):
    """What is set, by name; the last of each."""
    return dict(re.findall(r"^(\w+)=(.*)$", text_of(unit), re.MULTILINE))


class Units(unittest.TestCase):
    @unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd-analyze here")
    def test_systemd_takes_them_and_finds_them_hardened(self):
        with tempfile.TemporaryDirectory() as folder:
            for unit in UNITS:
                with self.subTest(unit):
                    text = text_of(unit).replace("/usr/local/bin/ringback", os.environ["RINGBACK"])
                    path = Path(folder, unit)
                    path.write_text(text)
                    # Of a template, an instance.
                    made = path.with_name(unit.replace("@.", "@admin."))
                    if made != path:
                        made.write_text(text)
                    done = self.analyze("verify", "--man=no", str(made))
                    ours = [line for line in done.stderr.splitlines() if "ringback" in line]
                    self.assertEqual(ours, [])
                    done = self.analyze(
                        "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", str(made)
                    )
                    self.assertEqual(done.returncode, 0, done.stdout[-500:])

    def analyze(self, *args):
        command = ["systemd-analyze", "--no-pager", *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def test_they_give_the_time_and_the_files_that_the_program_needs(self):
        files = schema.default("dispatcher.slots") + 2 * schema.default("dispatcher.idle_max")
        drain = int(schema.default("dispatcher.drain").removesuffix("s"))
        for unit in UNITS:
            with self.subTest(unit):
                given = settings(unit)
                self.assertGreaterEqual(int(given["LimitNOFILE"]), files)
                self.assertGreaterEqual(int(given["TimeoutStopSec"]), drain + 30)
                self.assertEqual(given["RestartPreventExitStatus"], "64")

    def test_what_is_named_as_an_instance_is_a_component(self):
        named = set(re.findall(r"^#.*$", text_of("ringback@.service"), re.MULTILINE))
        names = set(re.findall(r"@(\w+)", " ".join(named)))
        self.assertEqual(names, {"producer", "dispatcher", "metrics", "admin", "canary"})
        for name in names:
            done = subprocess.run(
                [os.environ["RINGBACK"], name, "--help"], capture_output=True, text=True, timeout=60
            )
            self.assertIn("--config <FILE>", done.stdout, name)

    def test_their_configuration_has_no_mistake(self):
        for unit in UNITS:
            with self.subTest(unit), tempfile.TemporaryDirectory() as folder:
                given = settings(unit)
                self.assertIn("--config ${CREDENTIALS_DIRECTORY}/ringback.toml", given["ExecStart"])
                variables = dict(pair.split("=", 1) for pair in given["Environment"].split())
                file = Path(folder, "ringback.toml")
                file.touch()
                done = subprocess.run(
                    [os.environ["RINGBACK"], "config", "--config", str(file)],
                    env=variables,
                    capture_output=True,
                    text=True,
                    timeout=60,
                )
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn('dir = "/var/lib/ringback', done.stdout)


if __name__ == "__main__":
    unittest.main()
