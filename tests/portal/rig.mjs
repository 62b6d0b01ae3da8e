// An installation of real processes, and the pages with everything that must never happen on them.

import AxeBuilder from "@axe-core/playwright";
import { expect, test as base } from "@playwright/test";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";

const RINGBACK = process.env.PORTAL_RINGBACK;
/** How long something may take before it counts as never. */
const PATIENCE = 60_000;
/** Retries after a second, disabled after a few failures in a row. */
const SETTINGS = [
  "admin.listen=127.0.0.1:0", "ingest.listen=127.0.0.1:0", "telemetry.listen=127.0.0.1:0",
  "topics.event_partitions=2", "topics.work_partitions=1",
  "schedule.tiers=[\"1s\",\"2s\"]", "dispatcher.drain=1s",
  "metrics.policy.attempts=6", "metrics.policy.failed_percent=60", "metrics.policy.silence=2s", "metrics.policy.window=4h",
];

/** Waits until this is something, and gives it. */
export async function eventually(what, look) {
  const until = Date.now() + PATIENCE;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > until) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** A process that is ended with the test. */
class Child {
  constructor(args, cwd, env = {}) {
    this.lines = [];
    this.process = spawn(RINGBACK, args, { cwd, env: { PATH: process.env.PATH, ...env }, stdio: ["pipe", "pipe", "pipe"] });
    this.ended = new Promise((resolve) => this.process.on("close", (status) => resolve(status)));
    this.process.on("error", (error) => this.lines.push(String(error)));
    this.said = [];
    createInterface({ input: this.process.stdout }).on("line", (line) => this.lines.push(line));
    createInterface({ input: this.process.stderr }).on("line", (line) => this.said.push(line));
  }

  /** Waits for a line that this finds something in. */
  line(what, find) {
    return eventually(what, () => {
      if (this.process.exitCode !== null) throw new Error(`${what}: it ended: ${this.said.join("\n")}`);
      return this.lines.map(find).find(Boolean);
    });
  }

  async stop() {
    this.process.kill("SIGTERM");
    const late = setTimeout(() => this.process.kill("SIGKILL"), 10_000);
    await this.ended;
    clearTimeout(late);
  }
}

/** `ringback up` with a tenant, and what belongs to it. */
export class Installation {
  static async start(settings = []) {
    const made = new Installation();
    made.dir = mkdtempSync(path.join(tmpdir(), "ringback-portal-"));
    const set = [...SETTINGS, ...settings].flatMap((setting) => ["--set", setting]);
    made.children = [];
    made.up = made.run(["up", "--set", `log.local.dir=${path.join(made.dir, "data")}`, ...set]);
    const address = (name) => made.up.line(`the address of ${name}`, (line) => line.match(new RegExp(`^\\s+${name}\\s+(http://[^/]+)/`))?.[1]);
    made.url = await address("administration");
    made.ingest = await address("events go in at");
    made.operator = readFileSync(path.join(made.dir, "data", "operator-token"), "utf8").trim();
    return made;
  }

  run(args, env) {
    const child = new Child(args, this.dir, env);
    this.children.push(child);
    return child;
  }

  /** A request to the API as an operator, or with this token. */
  async api(method, at, body, { token = this.operator, headers = {} } = {}) {
    const send = () => fetch(`${this.url}/v1${at}`, {
      method,
      headers: { authorization: `Bearer ${token}`, ...(body ? { "content-type": "application/json" } : {}), ...headers },
      body: body && JSON.stringify(body),
    });
    // A busy machine may not know yet, or for a moment, that its configuration is current.
    const [response, text] = await eventually(`${method} ${at} is answered`, async () => {
      const answer = await send();
      const said = await answer.text();
      return !(answer.status === 503 && said.includes("configuration_stale")) && [answer, said];
    });
    if (!response.ok) throw new Error(`${method} ${at}: ${response.status} ${text}`);
    return text === "" ? null : JSON.parse(text);
  }

  /** A tenant with an administrator and a token to publish. */
  async tenant(id = "acme", title = "Acme Telecom") {
    await this.api("POST", "/tenants", { id, title });
    const login = `tina@${id}.example`;
    const made = await this.api("POST", "/accounts", { login, name: "Tina Temple", role: "tenant_administrator", tenant: id });
    this.token = (await this.api("POST", "/tokens", { tenant: id, name: "pbx" })).token;
    return { login, password: made.password };
  }

  /** `ringback listen`; `port` 0 takes a free one. */
  async listen(port, ...options) {
    const child = this.run(["listen", "--listen", `127.0.0.1:${port}`, "--json", ...options]);
    child.url = await child.line("the receiver's address", (line) => JSON.parse(line).listening);
    child.port = new URL(child.url).port;
    child.requests = () => child.lines.map((line) => JSON.parse(line)).filter((line) => line.id);
    return child;
  }

  /** `ringback send`: one event for each datum. */
  async send(type, data, ...options) {
    const child = this.run(["send", "--to", this.ingest, "--type", type, ...options], { RINGBACK_TOKEN: this.token });
    child.process.stdin.end(data.map((datum) => `${JSON.stringify(datum)}\n`).join(""));
    expect(await child.ended, child.said.join("\n")).toBe(0);
  }

  async end() {
    for (const child of [...this.children].reverse()) if (child.process.exitCode === null) await child.stop();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** What the browser may complain of: answers of the API that the pages are made to deal with. */
function isExpected(message) {
  return message.text().startsWith("Failed to load resource") && new URL(message.location().url).pathname.startsWith("/v1/");
}

export const test = base.extend({
  page: async ({ page }, use) => {
    const faults = [];
    page.on("pageerror", (error) => faults.push(`error: ${error.stack}`));
    // What the policy forbids is among these.
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type()) && !isExpected(message)) faults.push(`console: ${message.text()}`);
    });
    page.on("dialog", (dialog) => {
      faults.push(`a dialog was opened: ${dialog.message()}`);
      dialog.dismiss();
    });
    await use(page);
    expect(faults).toEqual([]);
  },
});

/** Signs in as a person does. */
export async function signIn(page, installation, { login, password }) {
  await page.goto(`${installation.url}/portal/sign-in`);
  await page.getByLabel("Login").fill(login);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByRole("button", { name: "Sign out" })).toBeVisible();
}

/** Waits until the page has everything it asked for. */
export async function settled(page) {
  await expect(page.locator("[aria-busy]")).toHaveCount(0);
  await expect(page.locator("h1").first()).toBeVisible();
}

/** Nothing that axe knows is wrong. */
export async function accessible(page) {
  const { violations } = await new AxeBuilder({ page }).analyze();
  const told = violations.map(({ id, help, nodes }) => `${id}: ${help}\n  ${nodes.map((node) => `${node.target} ${node.failureSummary}`).join("\n  ")}`);
  expect(told).toEqual([]);
}

/** A picture for people to look at. */
export async function picture(page, name) {
  const dir = path.join(base.info().config.metadata.artefacts, "screenshots");
  mkdirSync(dir, { recursive: true });
  await page.screenshot({ path: path.join(dir, `${name}.png`), fullPage: true });
}

export { expect };
