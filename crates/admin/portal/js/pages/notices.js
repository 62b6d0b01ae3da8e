// Who gets mail when a webhook of a company fails, is disabled or works again.

import { get, mayWrite, path, request } from "../api.js";
import { companyHead } from "../company.js";
import { h } from "../dom.js";
import { Field, form, refuse, text } from "../form.js";
import { button, card, confirm, into, say, table } from "../ui.js";

export async function notices({ params: { tenant } }) {
  const list = h("div", { class: "fields" });
  const load = () => into(list, async () => {
    const { notify, mailed } = await get(at(tenant));
    return [!mailed && notMailed(), recipients(tenant, notify, load)];
  });
  await load();
  const content = [await companyHead(tenant), card("Notices by mail",
    h("p", { class: "muted" }, "When a webhook is failing, is disabled or works again, these addresses are told: which one, since when, why, and what to do. ",
      "Programs are told by a webhook that is subscribed to ", h("code", null, "webhook.*"), "."),
    list, mayWrite() && adding(tenant, load))];
  return { title: "Notices", content };
}

const at = (tenant) => `${path("tenants", tenant)}/notify`;

const notMailed = () => h("p", { class: "notice", role: "status" },
  "This installation sends no mail yet: an operator has to name a mail server (admin.mail). Addresses can be entered before that.");

function recipients(tenant, notify, load) {
  const columns = [{ label: "Address" }, { label: "Remove", class: "narrow" }];
  return table("Recipients of notices", columns, notify.map((address) => [
    address,
    mayWrite() ? button("Remove…", () => remove(tenant, address, load), { small: true, "aria-label": `Remove ${address}` }) : "",
  ]), "Nobody gets mail about these webhooks yet, but perhaps the operators.");
}

function adding(tenant, load) {
  const address = new Field("notify", "Add an address", text({ type: "email", autocomplete: "email", maxlength: "254", placeholder: "it@acme.example" }));
  const send = async () => {
    const wanted = address.value.trim();
    if (!wanted) throw refuse("notify", "Enter a mail address, such as it@acme.example.");
    await change(tenant, (notify) => {
      if (notify.includes(wanted)) throw refuse("notify", `${wanted} is told already.`);
      return [...notify, wanted];
    });
    address.input.value = "";
    say("good", `${wanted} gets mail from now on.`);
    await load();
  };
  return form({ label: "New recipient", fields: [address], send, submit: "Add", children: address.element });
}

async function remove(tenant, address, load) {
  if (!(await confirm(`Remove ${address}?`, "It is told nothing about these webhooks any more.", "Remove"))) return;
  await change(tenant, (notify) => notify.filter((other) => other !== address));
  say("good", `${address} gets no more mail.`);
  await load();
}

/** The API takes the whole list: what somebody else does to it meanwhile must stay. */
async function change(tenant, edit) {
  for (let tries = 1; ; tries += 1) {
    const { data, etag } = await request("GET", at(tenant));
    try {
      return await request("PUT", at(tenant), { body: { notify: edit(data.notify) }, match: etag });
    } catch (problem) {
      if (problem.status !== 412 || tries === 4) throw problem;
    }
  }
}
