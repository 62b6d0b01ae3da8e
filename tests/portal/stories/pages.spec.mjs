// Every page in light, dark and at a phone's width: what axe finds, what sticks out, and what was
// written as markup.

import { Installation, accessible, eventually, expect, picture, settled, signIn, test } from "../rig.mjs";

const HTML = "<img src=x onerror=alert(1)><b>bold</b>";
const BASE = "/portal/tenants/acme";
const HOOK = `${BASE}/webhooks/cdr`;

let installation;
let account;
let event;

test.beforeAll(async () => {
  installation = await Installation.start();
  account = await installation.tenant("acme", `Acme ${HTML}`);
  const receiver = await installation.listen(0, "--status", "500", "--header", `x-markup:${HTML}`);
  await installation.api("POST", "/tenants/acme/webhooks", { name: "cdr", url: `${receiver.url}/cdr` });
  await installation.api("POST", "/tenants/acme/webhooks", { name: "crm", url: `${receiver.url}/crm`, subscription: ["call.*"], enabled: false });
  await installation.send("cdr.completed", [1, 2, 3].map((n) => ({ caller: `${HTML}${n}` })));
  await eventually("all are parked", async () => {
    const { parked } = await installation.api("GET", "/tenants/acme/webhooks/cdr/parked");
    event = parked[0]?.event;
    return parked.length === 3;
  });
});
test.afterAll(() => installation?.end());

const OF_TENANT = {
  "event-url": BASE, tokens: `${BASE}/tokens`, accounts: `${BASE}/accounts`, notices: `${BASE}/notices`, "personal-data": `${BASE}/personal-data`, changes: `${BASE}/changes`, guide: `${BASE}/guide`,
  find: `${BASE}/events`, new: `${BASE}/new-webhook`, deliveries: HOOK, parked: `${HOOK}/parked`,
  settings: `${HOOK}/settings`, signing: `${HOOK}/signing`, me: "/portal/me",
};
const OF_OPERATOR = {
  tenants: "/portal/tenants", failing: "/portal/operations", lag: "/portal/operations/lag",
  dispatchers: "/portal/operations/dispatchers", "all-accounts": "/portal/accounts", "all-changes": "/portal/changes",
};

/** Whether something is wider than the window. */
const sticksOut = (page) => page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth + 1);

async function look(page, pages, suffix) {
  // A machine with much else to do is slow with each.
  test.setTimeout(120_000 + 40_000 * Object.keys(pages).length);
  for (const [name, at] of Object.entries(pages)) {
    await test.step(name, async () => {
      await page.goto(installation.url + at);
      await settled(page);
      await expect(page.getByText("cannot be shown")).toHaveCount(0);
      await page.evaluate(() => document.querySelectorAll("main details").forEach((details) => { details.open = true; }));
      await accessible(page);
      expect(await sticksOut(page), `${name} is too wide`).toBe(false);
      expect(await page.locator("main b, main img").count(), `${name} made markup of text`).toBe(0);
      await picture(page, `${name}-${suffix}`);
    });
  }
}

for (const [suffix, colorScheme, width] of [["light", "light", 1280], ["dark", "dark", 1280], ["phone", "light", 390]]) {
  test.describe(suffix, () => {
    test.use({ colorScheme, viewport: { width, height: width < 500 ? 844 : 860 } });

    test(`pages of a tenant, ${suffix}`, async ({ page }) => {
      await page.goto(`${installation.url}/portal/sign-in`);
      await settled(page);
      await accessible(page);
      await picture(page, `sign-in-${suffix}`);
      await signIn(page, installation, account);
      await look(page, { ...OF_TENANT, event: `${BASE}/events/${event}` }, suffix);
    });

    test(`pages of an operator, ${suffix}`, async ({ page }) => {
      await page.goto(`${installation.url}/portal/sign-in?with=token`);
      await page.getByLabel("Token").fill(installation.operator);
      await page.getByRole("button", { name: "Sign in" }).click();
      await expect(page.getByRole("heading", { name: "Tenants" })).toBeVisible();
      await look(page, OF_OPERATOR, suffix);
    });
  });
}

test("what others wrote shows as text", async ({ page }) => {
  await signIn(page, installation, account);
  await expect(page.getByRole("heading", { name: `Acme ${HTML}` })).toBeVisible();
  await page.goto(`${installation.url}${HOOK}`);
  const row = page.getByRole("listitem").filter({ hasText: "500" }).first();
  await row.locator("summary").click();
  await expect(row).toContainText(HTML);
});

test("the policy refuses what is inline, and frames", async ({ page }) => {
  const response = await page.request.get(`${installation.url}/portal/`);
  const headers = response.headers();
  expect(headers["content-security-policy"]).toContain("default-src 'none'");
  expect(headers["x-content-type-options"]).toBe("nosniff");
  const known = await page.request.get(`${installation.url}/portal/`, { headers: { "if-none-match": headers.etag } });
  expect(known.status()).toBe(304);
  const fresh = await page.context().browser().newPage();
  const violations = [];
  fresh.on("console", (message) => violations.push(message.text()));
  await fresh.goto(`${installation.url}/portal/sign-in`);
  await fresh.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "window.ran = true";
    document.body.append(script);
  });
  expect(await fresh.evaluate(() => window.ran)).toBeUndefined();
  expect(violations.join()).toContain("Content Security Policy");
  await fresh.close();
});
