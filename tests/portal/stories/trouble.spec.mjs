// What goes wrong while somebody works: somebody else is faster, the session ends, the history is gone.

import { Installation, accessible, expect, picture, settled, signIn, test } from "../rig.mjs";

const WEBHOOK = "/tenants/acme/webhooks/cdr";

let installation;
let account;

test.beforeAll(async () => {
  // Without a database of the logs: charts cannot be shown, and everything else goes on.
  installation = await Installation.start(["admin.projection.engine=none"]);
  account = await installation.tenant();
  await installation.api("POST", "/tenants/acme/webhooks", { name: "cdr", url: "http://127.0.0.1:8999/cdr" });
});
test.afterAll(() => installation?.end());
test.beforeEach(({ page }) => signIn(page, installation, account));

test("somebody else was faster: one sees what changed, and chooses", async ({ page }) => {
  const settings = `${installation.url}/portal${WEBHOOK}/settings`;
  const changed = (url) => installation.api("PATCH", WEBHOOK, { url }, { headers: { "if-match": "*" } });
  const now = async () => (await installation.api("GET", WEBHOOK)).url;
  const dialog = page.getByRole("dialog");
  const edit = async (url) => {
    await page.getByLabel("CDR URL").fill(url);
    await page.getByRole("button", { name: "Save", exact: true }).click();
    await expect(dialog).toContainText("Somebody else changed this webhook");
  };

  await page.goto(settings);
  await settled(page);
  await changed("http://127.0.0.1:8999/theirs");
  await edit("http://127.0.0.1:8999/mine");
  await expect(dialog.getByRole("row", { name: "URL" })).toContainText("http://127.0.0.1:8999/theirs");
  await accessible(page);
  await picture(page, "conflict");
  await dialog.getByRole("button", { name: "Go on editing" }).click();
  await expect(page.getByLabel("CDR URL")).toHaveValue("http://127.0.0.1:8999/mine");
  expect(await now()).toBe("http://127.0.0.1:8999/theirs");

  await page.getByRole("button", { name: "Save", exact: true }).click();
  await dialog.getByRole("button", { name: "Take what is there now" }).click();
  await expect(page.getByLabel("CDR URL")).toHaveValue("http://127.0.0.1:8999/theirs");
  expect(await now()).toBe("http://127.0.0.1:8999/theirs");

  await changed("http://127.0.0.1:8999/theirs-again");
  await edit("http://127.0.0.1:8999/mine");
  await dialog.getByRole("button", { name: "Save mine" }).click();
  await expect(page.getByText("Saved.")).toBeVisible();
  expect(await now()).toBe("http://127.0.0.1:8999/mine");
});

test("what the API refuses appears at its field", async ({ page }) => {
  await page.goto(`${installation.url}/portal/tenants/acme/new-webhook`);
  await page.getByLabel("Name", { exact: true }).fill("not / a name");
  await page.getByLabel("Event URL").fill("http://127.0.0.1:8999/x");
  await page.getByLabel("Events", { exact: true }).fill("call.*");
  await page.getByRole("button", { name: "Add webhook" }).click();
  await expect(page.getByRole("alert")).toContainText("name");
  await page.getByLabel("Name", { exact: true }).fill("crm");
  await page.getByLabel("Event URL").fill("ftp://127.0.0.1/x");
  await page.getByRole("button", { name: "Add webhook" }).click();
  await expect(page.getByLabel("Event URL")).toHaveAttribute("aria-invalid", "true");
  await expect(page.getByLabel("Event URL")).toBeFocused();
  await accessible(page);
  await picture(page, "refused-field");
});

test("a session that ends leads to signing in, and back", async ({ page, context }) => {
  await page.goto(`${installation.url}/portal${WEBHOOK}/settings`);
  await settled(page);
  await context.clearCookies();
  await page.getByLabel("CDR URL").fill("http://127.0.0.1:8999/late");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await expect(page.getByText("Your session has ended")).toBeVisible();
  await accessible(page);
  await picture(page, "session-ended");
  await page.getByLabel("Login").fill(account.login);
  await page.getByLabel("Password").fill(account.password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page).toHaveURL(`${installation.url}/portal${WEBHOOK}/settings`);
  await expect(page.getByRole("heading", { name: "CDR Events" })).toBeVisible();
});

test("without history the pages say so, and configuration goes on", async ({ page }) => {
  const detail = "the projection cannot be read: the disk is full";
  const body = JSON.stringify({ status: 503, code: "projection_unavailable", detail });
  await page.route("**/attempts?*", (route) => route.fulfill({ status: 503, contentType: "application/problem+json", body }));
  await page.goto(`${installation.url}/portal${WEBHOOK}`);
  await settled(page);
  // Charts: really without a database. The log: as if its disk were full.
  await expect(page.getByText("History cannot be shown now.")).toHaveCount(2);
  await expect(page.getByText("the disk is full")).toBeVisible();
  await expect(page.getByText("Deliveries and configuration are not affected.").first()).toBeVisible();
  await accessible(page);
  await picture(page, "no-history");
  await page.getByRole("link", { name: "Settings" }).click();
  await page.getByLabel("CDR URL").fill("http://127.0.0.1:8999/still");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await expect(page.getByText("Saved.")).toBeVisible();
});
