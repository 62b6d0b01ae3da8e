// From the mail about a disabled webhook to its page, with signing in on the way.

import { createServer } from "node:net";
import { createInterface } from "node:readline";

import { Installation, eventually, expect, picture, signIn, test } from "../rig.mjs";

const PUBLIC = "https://ringback.pbx.example";

let installation;
let account;
let server;
const mails = [];

/** Takes every mail; the tests of mail itself have a server that others wrote. */
function mailServer() {
  const taken = createServer((socket) => {
    let mail = null;
    const answer = (line) => socket.write(`${line}\r\n`);
    socket.on("error", () => {});
    answer("220 sink");
    createInterface({ input: socket, crlfDelay: Infinity }).on("line", (line) => {
      if (mail !== null && line !== ".") return mail.push(line);
      if (mail !== null) {
        mails.push(decoded(mail.join("\n")));
        mail = null;
        return answer("250 taken");
      }
      const verb = line.split(" ")[0].toUpperCase();
      if (verb === "DATA") mail = [];
      if (verb === "QUIT") return socket.end("221 bye\r\n");
      return answer(verb === "DATA" ? "354 go on" : "250 fine");
    });
  });
  return new Promise((resolve) => { taken.listen(0, "127.0.0.1", () => resolve(taken)); });
}

function decoded(mail) {
  const [head, ...body] = mail.split("\n\n");
  const text = body.join("\n\n");
  const encoding = head.match(/^content-transfer-encoding: *(\S+)/im)?.[1].toLowerCase();
  if (encoding === "base64") return Buffer.from(text, "base64").toString();
  if (encoding !== "quoted-printable") return text;
  return text.replaceAll("=\n", "").replace(/=([0-9A-F]{2})/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)));
}

test.beforeAll(async () => {
  server = await mailServer();
  installation = await Installation.start([
    `admin.mail.server=127.0.0.1:${server.address().port}`, "admin.mail.tls=none", "admin.mail.from=ringback@pbx.example",
    "admin.mail.gather=1s", `admin.public_url=${PUBLIC}`,
  ]);
  account = await installation.tenant();
  await installation.api("PUT", "/tenants/acme/notify", { notify: ["it@acme.example"] });
  const receiver = await installation.listen(0, "--status", "500");
  await installation.api("POST", "/tenants/acme/webhooks", { name: "cdr", url: receiver.url });
  await installation.send("cdr.completed", Array.from({ length: 8 }, (_, n) => ({ n })));
});
test.afterAll(async () => {
  await installation?.end();
  server?.close();
});

/** Where the browser finds what the mail names by the address that the world knows. */
const here = (link) => link.replace(PUBLIC, installation.url);

test("the link in a mail leads to the webhook, with signing in on the way", async ({ page, browser }) => {
  const mail = await eventually("a mail says that it is disabled", () => mails.find((text) => text.includes("acme/cdr: disabled")));
  const link = mail.match(/see: +(\S+)/)[1];
  expect(link).toBe(`${PUBLIC}/portal/tenants/acme/webhooks/cdr`);

  await page.goto(here(link));
  await expect(page.getByRole("heading", { name: "Sign in" })).toBeVisible();
  await picture(page, "mail-sign-in");
  await page.getByLabel("Login").fill(account.login);
  await page.getByLabel("Password").fill("not my password");
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByLabel("Password")).toHaveAttribute("aria-invalid", "true");
  await page.getByLabel("Password").fill(account.password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page).toHaveURL(here(link));
  await expect(page.getByRole("button", { name: "Enable" }).first()).toBeVisible();
  await picture(page, "mail-webhook");

  // By a token instead, and once signed in at once.
  const other = await (await browser.newContext()).newPage();
  await other.goto(here(link));
  await other.getByRole("link", { name: "Sign in with a token" }).click();
  await other.getByLabel("Token").fill(installation.operator);
  await other.getByRole("button", { name: "Sign in" }).click();
  await expect(other).toHaveURL(here(link));
  await other.goto(`${installation.url}/portal/`);
  await other.goto(here(link));
  await expect(other.getByRole("button", { name: "Enable" }).first()).toBeVisible();
  await other.context().close();
});

test("somebody of another company learns nothing by the link", async ({ page }) => {
  const other = await installation.tenant("globex", "Globex");
  await signIn(page, installation, other);
  await page.goto(`${installation.url}/portal/tenants/acme/webhooks/cdr`);
  await expect(page.getByRole("heading", { name: "Not found" })).toBeVisible();
  await expect(page.getByRole("main")).not.toContainText("Enable");
});
