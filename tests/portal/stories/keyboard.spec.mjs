// A story by keyboard alone.

import { Installation, expect, picture, test } from "../rig.mjs";

let installation;
let account;
let receiver;

test.beforeAll(async () => {
  installation = await Installation.start();
  account = await installation.tenant();
  receiver = await installation.listen(0);
});
test.afterAll(() => installation?.end());

test("Extension Events are set up, tested and signed out of by keyboard", async ({ page }) => {
  /** Tabs on until this has the focus. */
  const reach = async (locator) => {
    await expect(locator).toBeVisible();
    for (let steps = 0; steps < 80; steps += 1) {
      if (await locator.evaluate((element) => element === document.activeElement)) return;
      await page.keyboard.press("Tab");
    }
    throw new Error(`the focus never came to ${locator}`);
  };
  await page.goto(installation.url);
  await expect(page.getByLabel("Login")).toBeFocused();
  await page.keyboard.type(account.login);
  await page.keyboard.press("Tab");
  await page.keyboard.type(account.password);
  await page.keyboard.press("Enter");
  await expect(page.getByRole("heading", { name: "Acme Telecom" })).toBeFocused();

  const extension = page.getByRole("region", { name: "Extension Events", exact: true });
  await reach(extension.getByLabel("Authentication Method"));
  await page.keyboard.type("Bearer");
  await reach(extension.getByLabel("Bearer token"));
  await page.keyboard.type("t0ken");
  await reach(extension.getByLabel("Event URL"));
  await page.keyboard.type(`${receiver.url}/extension`);
  await reach(extension.getByRole("switch", { name: "Enable" }));
  await page.keyboard.press("Space");
  await page.keyboard.press("Space");
  await page.keyboard.press("Enter");
  const dialog = page.getByRole("dialog");
  await expect(dialog).toContainText("Extension Events is set up");
  await reach(dialog.getByRole("button", { name: "Copy" }));
  await picture(page, "keyboard-secret");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Escape");
  await expect(dialog).toHaveCount(0);

  await reach(extension.getByRole("link", { name: "Deliveries and settings" }));
  await page.keyboard.press("Enter");
  await expect(page.getByRole("heading", { name: "Extension Events" })).toBeFocused();
  await reach(page.getByRole("button", { name: "Send test" }));
  await page.keyboard.press("Enter");
  await expect(dialog.getByLabel("Message", { exact: true })).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(dialog.getByRole("heading", { name: "Response 200" })).toBeVisible();
  await page.keyboard.press("Escape");
  const row = page.getByRole("listitem").filter({ hasText: "webhook.test" }).first();
  await reach(row.locator("summary"));
  await picture(page, "keyboard-row");
  await page.keyboard.press("Enter");
  await expect(row.getByRole("heading", { name: "Response 200" })).toBeVisible();

  await page.keyboard.press("Control+Home");
  await page.reload();
  await expect(page.getByRole("heading", { name: "Extension Events" })).toBeFocused();
  await page.keyboard.press("Shift+Tab");
  await reach(page.getByRole("button", { name: "Sign out" }));
  await page.keyboard.press("Enter");
  await expect(page.getByLabel("Login")).toBeFocused();
});
