// An operator: a new company with its administrator, and what works badly anywhere.

import { Installation, accessible, eventually, expect, picture, settled, signIn, test } from "../rig.mjs";

let installation;

test.beforeAll(async () => {
  installation = await Installation.start();
});
test.afterAll(() => installation?.end());

test("a company is added, its administrator begins, and the operator sees what fails", async ({ page, browser }) => {
  await page.goto(`${installation.url}/portal/sign-in`);
  await page.getByRole("link", { name: "Sign in with a token" }).click();
  await page.getByLabel("Token").fill(installation.operator);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("button", { name: "Add tenant" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Id").fill("globex");
  await dialog.getByLabel("Company").fill("Globex");
  await accessible(page);
  await dialog.getByRole("button", { name: "Add tenant" }).click();
  await expect(page.getByRole("heading", { name: "Globex" })).toBeVisible();

  await page.getByRole("navigation", { name: "Company" }).getByRole("link", { name: "Accounts" }).click();
  await page.getByRole("button", { name: "Add account" }).click();
  await dialog.getByLabel("Login").fill("gina@globex.example");
  await dialog.getByLabel("Name").fill("Gina");
  await dialog.getByRole("button", { name: "Add account" }).click();
  await expect(dialog).toContainText("never again");
  const password = await dialog.locator("code").textContent();
  await picture(page, "operator-first-password");
  await dialog.getByRole("button", { name: "I have it" }).click();
  await expect(page.getByRole("cell", { name: "gina@globex.example", exact: true })).toBeVisible();

  const theirs = await browser.newContext();
  const hers = await theirs.newPage();
  await signIn(hers, installation, { login: "gina@globex.example", password });
  await expect(hers.getByRole("heading", { name: "Globex" })).toBeVisible();
  await expect(hers.getByRole("link", { name: "Tenants" })).toHaveCount(0);
  await hers.goto(`${installation.url}/portal/operations`);
  await expect(hers.getByText("There is nothing here")).toBeVisible();
  await theirs.close();

  const token = (await installation.api("POST", "/tokens", { tenant: "globex", name: "pbx" })).token;
  installation.token = token;
  const receiver = await installation.listen(0, "--status", "500");
  await installation.api("POST", "/tenants/globex/webhooks", { name: "cdr", url: receiver.url });
  await installation.send("cdr.completed", Array.from({ length: 8 }, (_, n) => ({ n })));
  await eventually("it is disabled", async () => (await installation.api("GET", "/tenants/globex/webhooks/cdr")).health.state === "disabled");
  await page.getByRole("link", { name: "Operations" }).click();
  await expect(page.getByRole("link", { name: "globex / cdr" })).toBeVisible();
  await settled(page);
  await accessible(page);
  await picture(page, "operator-failing");
  await page.getByRole("link", { name: "Pipeline lag" }).click();
  await expect(page.getByRole("cell", { name: /events\.cdr/ }).first()).toBeVisible();
  await picture(page, "operator-lag");
  await page.getByRole("link", { name: "Dispatchers" }).click();
  await expect(page.getByRole("table", { name: /^Members of/ }).first()).toBeVisible();
  await picture(page, "operator-dispatchers");

  await page.goto(`${installation.url}/portal/tenants/globex/changes`);
  await expect(page.getByRole("row").filter({ hasText: "webhook" }).first()).toBeVisible();
  await picture(page, "operator-changes");
});
