// What an administrator of a company does besides webhooks: who is told by mail, what is forgotten.

import { Installation, accessible, eventually, expect, picture, signIn, test } from "../rig.mjs";

let installation;
let account;

test.beforeAll(async () => {
  installation = await Installation.start();
  account = await installation.tenant();
});
test.afterAll(() => installation?.end());

const told = async () => (await installation.api("GET", "/tenants/acme/notify")).notify;

test("who is told by mail", async ({ page }) => {
  await signIn(page, installation, account);
  await page.getByRole("navigation", { name: "Company" }).getByRole("link", { name: "Notices" }).click();
  await expect(page.getByText("sends no mail yet")).toBeVisible();
  await expect(page.getByText("Nobody gets mail")).toBeVisible();
  const field = page.getByLabel("Add an address");
  const add = page.getByRole("button", { name: "Add", exact: true });

  await add.click();
  await expect(field).toHaveAccessibleDescription(/Enter a mail address/);
  await field.fill("it@acme.example");
  await add.click();
  await expect(page.getByRole("cell", { name: "it@acme.example", exact: true })).toBeVisible();
  await expect(field).toHaveValue("");

  // The administration's own words, at the field.
  await field.fill("nobody");
  await add.click();
  await expect(field).toHaveAttribute("aria-invalid", "true");
  await expect(field).toHaveAccessibleDescription(/is not a mail address such as/);
  await accessible(page);
  await picture(page, "notices-refused");
  await field.fill("it@acme.example");
  await add.click();
  await expect(field).toHaveAccessibleDescription(/is told already/);

  // What somebody else does meanwhile stays.
  await installation.api("PUT", "/tenants/acme/notify", { notify: ["it@acme.example", "night@acme.example"] });
  await field.fill("ops@acme.example");
  await add.click();
  await expect(page.getByRole("cell", { name: "ops@acme.example", exact: true })).toBeVisible();
  await expect(page.getByRole("cell", { name: "night@acme.example", exact: true })).toBeVisible();
  await page.getByRole("button", { name: "Remove it@acme.example" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Remove", exact: true }).click();
  await expect(page.getByRole("cell", { name: "it@acme.example", exact: true })).toHaveCount(0);
  expect(await told()).toEqual(["night@acme.example", "ops@acme.example"]);
});

test("what is known of a call is forgotten", async ({ page }) => {
  const receiver = await installation.listen(0, "--status", "500");
  await installation.api("POST", "/tenants/acme/webhooks", { name: "cdr", url: receiver.url });
  await installation.send("cdr.completed", [{ call: "one" }, { call: "two" }], "--subject-from", "call", "--subject-prefix", "call/");
  const parked = async () => (await installation.api("GET", "/tenants/acme/webhooks/cdr/parked")).parked;
  await eventually("both are parked", async () => (await parked()).length === 2);
  const { event } = (await parked()).find(({ subject }) => subject === "call/one");

  await signIn(page, installation, account);
  await page.goto(`${installation.url}/portal/tenants/acme/events/${event}`);
  await page.getByRole("link", { name: "Erase…" }).click();
  const field = page.getByRole("textbox", { name: "Subject" });
  await expect(field).toHaveValue("call/one");
  await expect(page.getByText("is not rewritten")).toContainText("14 d at the latest");
  await expect(page.getByText("Nothing was erased")).toBeVisible();
  await page.getByRole("button", { name: "Erase…", exact: true }).click();
  const dialog = page.getByRole("dialog");
  await accessible(page);
  await picture(page, "personal-data-sure");
  await dialog.getByRole("button", { name: "Cancel" }).click();
  expect((await parked()).length).toBe(2);
  await page.getByRole("button", { name: "Erase…", exact: true }).click();
  await dialog.getByRole("button", { name: "Erase", exact: true }).click();
  const row = page.getByRole("row").filter({ hasText: "call/one" });
  await expect(row).toContainText(account.login);
  expect((await parked()).map(({ subject }) => subject)).toEqual(["call/two"]);
  await page.goto(`${installation.url}/portal/tenants/acme/events/${event}`);
  await expect(page.getByText("nothing is known of an event", { exact: false })).toBeVisible();

  await page.goto(`${installation.url}/portal/tenants/acme/personal-data`);
  // The administration's own words, at the field.
  await field.fill("x".repeat(300));
  await page.getByRole("button", { name: "Erase…", exact: true }).click();
  await dialog.getByRole("button", { name: "Erase", exact: true }).click();
  await expect(field).toHaveAttribute("aria-invalid", "true");

  await page.getByText("Everything of this company").click();
  await page.getByRole("button", { name: "Erase everything…" }).click();
  await dialog.getByRole("textbox").fill("globex");
  await dialog.getByRole("button", { name: "Erase", exact: true }).click();
  await expect(dialog.getByRole("textbox")).toHaveAccessibleDescription(/is not acme/);
  await dialog.getByRole("textbox").fill("acme");
  await dialog.getByRole("button", { name: "Erase", exact: true }).click();
  await expect(page.getByRole("row").filter({ hasText: "everything until then" })).toBeVisible();
  await picture(page, "personal-data");
  expect(await parked()).toEqual([]);
});
