// The whole story of a tenant's administrator: set up, break, repair, replay.

import { Installation, accessible, eventually, expect, picture, signIn, test } from "../rig.mjs";

let installation;
let account;

test.beforeAll(async () => {
  installation = await Installation.start();
  account = await installation.tenant();
});
test.afterAll(() => installation?.end());

test("CDR Events are set up, break, are disabled, repaired and replayed", async ({ page }) => {
  let receiver = await installation.listen(0, "--require-digest", "pbx:s3cret");
  const cdr = page.getByRole("region", { name: "CDR Events", exact: true });
  let secret;

  await test.step("first sign-in", async () => {
    await page.goto(installation.url);
    await expect(page.getByRole("heading", { name: "Sign in" })).toBeVisible();
    await page.getByLabel("Login").fill(account.login);
    await page.getByLabel("Password").fill("not this one");
    await page.getByRole("button", { name: "Sign in" }).click();
    await expect(page.getByLabel("Password")).toHaveAttribute("aria-invalid", "true");
    await picture(page, "story-1-sign-in-refused");
    await page.getByLabel("Password").fill(account.password);
    await page.getByRole("button", { name: "Sign in" }).click();
    await expect(page.getByRole("heading", { name: "Acme Telecom" })).toBeVisible();
    await expect(page.getByRole("link", { name: "Company" })).toBeVisible();
    await expect(page.getByRole("link", { name: "Event URL" })).toHaveAttribute("aria-current", "page");
  });

  await test.step("CDR Events with Digest Authentication", async () => {
    const methods = await cdr.getByLabel("Authentication Method").locator("option").allTextContents();
    expect(methods).toEqual(["Disable", "Basic Authentication", "Digest Authentication", "Bearer Authentication"]);
    await cdr.getByLabel("Authentication Method").selectOption("Digest Authentication");
    await cdr.getByLabel("User name").fill("pbx");
    await cdr.getByLabel("Password").fill("s3cret");
    await cdr.getByLabel("CDR URL").fill("not a url");
    await cdr.getByRole("button", { name: "Save" }).click();
    await expect(cdr.getByLabel("CDR URL")).toHaveAttribute("aria-invalid", "true");
    await cdr.getByLabel("CDR URL").fill(`${receiver.url}/cdr`);
    await expect(cdr.getByRole("switch", { name: "Enable" })).toBeChecked();
    await cdr.getByRole("button", { name: "Save" }).click();
    const dialog = page.getByRole("dialog");
    await expect(dialog).toContainText("CDR Events is set up");
    secret = await dialog.locator("code").textContent();
    expect(secret).toMatch(/^whsec_/);
    await accessible(page);
    await picture(page, "story-2-secret");
    await dialog.getByRole("button", { name: "I have it" }).click();
    await expect(cdr).toContainText("Healthy");
    await expect(page.getByText("not allowed")).toHaveCount(0);
    await picture(page, "story-3-set-up");
    await cdr.getByRole("button", { name: "Send test to CDR Events" }).click();
    await expect(dialog).toContainText("Send a test to");
    await dialog.getByRole("button", { name: "Close", exact: true }).last().click();
  });

  await test.step("a delivery, live", async () => {
    await cdr.getByRole("link", { name: "Deliveries and settings" }).click();
    await expect(page.getByText("Live", { exact: true })).toBeVisible();
    await installation.send("cdr.completed", [{ caller: "2001" }]);
    const row = page.getByRole("listitem").filter({ hasText: "cdr.completed" }).first();
    await expect(row).toContainText("200");
    await row.locator("summary").click();
    await expect(row.getByRole("heading", { name: "Response 200" })).toBeVisible();
    await eventually("the event arrived with Digest", () => receiver.requests().some((request) => request.status === 200));
    await picture(page, "story-4-delivered");
  });

  await test.step("a test event, with the whole answer", async () => {
    await page.getByRole("button", { name: "Send test" }).first().click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("button", { name: "Send test" }).click();
    await expect(dialog.getByRole("heading", { name: "Response 200" })).toBeVisible();
    await expect(dialog).toContainText("webhook-signature");
    await accessible(page);
    await picture(page, "story-5-test");
    await dialog.getByRole("button", { name: "Close", exact: true }).last().click();
  });

  const lost = [];
  await test.step("the receiver breaks, and the webhook is disabled", async () => {
    const { port } = receiver;
    await receiver.stop();
    receiver = await installation.listen(port, "--status", "500");
    await installation.send("cdr.completed", Array.from({ length: 8 }, (_, n) => ({ caller: `${3000 + n}` })));
    await expect(page.getByRole("listitem").filter({ hasText: "500" }).first()).toBeVisible();
    await expect(page.locator(".banner.disabled")).toBeVisible({ timeout: 60_000 });
    await expect(page.locator(".banner.disabled")).toContainText("What to do");
    lost.push(...new Set(receiver.requests().map((request) => request.id)));
    expect(lost.length).toBeGreaterThan(0);
    await accessible(page);
    await picture(page, "story-6-disabled");
    // While it is disabled, events are parked.
    await installation.send("cdr.completed", [{ caller: "4000" }, { caller: "4001" }]);
  });

  await test.step("repaired, enabled and replayed", async () => {
    const { port } = receiver;
    await receiver.stop();
    receiver = await installation.listen(port, "--require-digest", "pbx:s3cret", "--secret", secret);
    await page.getByRole("link", { name: "Parked" }).click();
    // Everything that was lost, and the two that came later.
    await eventually("all are parked", async () => {
      const { counts = {} } = await installation.api("GET", "/tenants/acme/webhooks/cdr/parked");
      return Object.values(counts).reduce((sum, count) => sum + count, 0) >= lost.length + 2;
    });
    await page.reload();
    await expect(page.getByRole("group", { name: "By reason" })).toContainText("disabled");
    await accessible(page);
    await picture(page, "story-7-parked");
    await page.getByRole("button", { name: "Enable" }).click();
    await expect(page.locator(".banner.disabled")).toHaveCount(0);
    await page.getByRole("button", { name: "Replay all…" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Replay", exact: true }).click();
    await expect(page.getByRole("group", { name: "Replay" }).first()).toContainText("done");
    const parked = await installation.api("GET", "/tenants/acme/webhooks/cdr/parked?limit=100");
    const wanted = [...new Set(parked.parked.map((entry) => entry.event))];
    expect(wanted.length).toBeGreaterThanOrEqual(lost.length + 2);
    await eventually("all ids arrived", () => {
      const arrived = new Set(receiver.requests().filter((request) => request.status === 200).map((request) => request.id));
      return wanted.every((id) => arrived.has(id));
    });
    await picture(page, "story-8-replayed");
    await page.getByRole("link", { name: "Deliveries" }).click();
    await expect(page.getByRole("listitem").filter({ hasText: "replay 1" }).filter({ hasText: "200" }).first()).toBeVisible();
    await picture(page, "story-9-healthy");
  });

  await test.step("signed out", async () => {
    await page.getByRole("button", { name: "Sign out" }).click();
    await expect(page.getByRole("heading", { name: "Sign in" })).toBeVisible();
    await page.goto(`${installation.url}/portal/tenants/acme`);
    await expect(page.getByRole("heading", { name: "Sign in" })).toBeVisible();
  });
});
