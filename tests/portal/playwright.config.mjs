// Stories in a real Chromium, against the real program. `cargo xtask test` prepares and runs them.

import { defineConfig } from "@playwright/test";
import { tmpdir } from "node:os";
import path from "node:path";

const artefacts = process.env.PORTAL_ARTEFACTS ?? path.join(tmpdir(), "ringback-portal");

export default defineConfig({
  testDir: "stories",
  outputDir: path.join(artefacts, "results"),
  // Each story has an installation of its own; machines have two cores, and others work on them.
  workers: 2,
  fullyParallel: false,
  retries: 0,
  forbidOnly: true,
  // These end what hangs. A machine with ten times as much to do as it can takes minutes for a story.
  timeout: 480_000,
  globalTimeout: 1_500_000,
  expect: { timeout: 30_000 },
  reporter: [["list"]],
  metadata: { artefacts },
  use: {
    viewport: { width: 1280, height: 860 },
    locale: "en-GB",
    timezoneId: "UTC",
    actionTimeout: 30_000,
    trace: "retain-on-failure",
    launchOptions: {
      executablePath: process.env.PORTAL_CHROMIUM ?? "/usr/bin/chromium",
      // CI is root in a container, where Chromium's own sandbox cannot be made.
      args: ["--no-sandbox", "--disable-dev-shm-usage"],
    },
  },
});
