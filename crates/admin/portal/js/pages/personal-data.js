// Having forgotten what is known of a subject, or of a whole company.

import { get, mayWrite, path, post, query } from "../api.js";
import { companyHead } from "../company.js";
import { h, replace } from "../dom.js";
import { seconds, when } from "../format.js";
import { Field, form, refuse, text } from "../form.js";
import { button, card, confirm, dialog, into, say, table } from "../ui.js";

export async function personalData({ params: { tenant }, query: asked }) {
  const at = `${path("tenants", tenant)}/erasures`;
  const list = h("div", { class: "fields" });
  const keeps = h("strong", null, "their retention");
  const all = [];
  const more = async (before) => {
    const page = await get(`${at}${query({ before })}`);
    all.push(...page.erasures);
    replace(keeps, page.log_keeps_seconds ? `${seconds(page.log_keeps_seconds)} at the latest` : "their retention");
    return [erasures(all), page.next && button("Show older", async () => replace(list, await more(page.next)))];
  };
  const load = () => into(list, () => { all.length = 0; return more(null); });
  await load();
  const content = [await companyHead(tenant),
    card("Erase personal data", warning(keeps), mayWrite() ? bySubject(tenant, asked.get("subject"), load) : null,
      mayWrite() && h("details", null, h("summary", null, "Everything of this company"),
        h("div", { class: "fields" },
          h("p", null, "All attempts, parked deliveries and replays until now, of all webhooks. Webhooks, tokens and accounts stay."),
          h("div", { class: "actions" }, button("Erase everything…", () => everything(tenant, load), { kind: "danger" }))))),
    card("Erased", h("p", { class: "muted" }, "Newest first, as long as something could come back."), list)];
  return { title: "Personal data", content };
}

function warning(keeps) {
  return h("div", { class: "notice warn" },
    h("p", null, h("strong", null, "At once "), "attempts, parked deliveries and replays of it until now are no longer shown, and can no longer be replayed. This cannot be taken back."),
    h("p", null, h("strong", null, "The log itself "), "is not rewritten: it forgets its records after ", keeps,
      ". Until then whoever reads the log’s own files or topics can read them, and a delivery that waits is still delivered."),
    h("p", null, "What happens afterwards is shown again. Receivers keep what they were sent."));
}

function bySubject(tenant, wanted, load) {
  const subject = new Field("subject", "Subject", text({ value: wanted ?? "", placeholder: "call/0195b0a2-0c52-7c3c-9a55-7a6f6d9c1c11" }),
    { hint: "What the events are about, exactly as they say it, such as call/… or extension/2001. The page of an event shows it." });
  const send = async () => {
    const of = subject.value.trim();
    if (!of) throw refuse("subject", "Enter a subject, such as call/0195….");
    if (!(await confirm(`Erase what is known of ${of}?`, "What there is of it now is no longer shown to anybody. This cannot be taken back.", "Erase"))) return;
    await erase(tenant, { subject: of }, of, load);
    subject.input.value = "";
  };
  return form({ label: "Erase a subject", fields: [subject], send, submit: "Erase…", children: subject.element });
}

/** Its id must be typed: this takes the whole history of a company. */
async function everything(tenant, load) {
  const sure = await dialog("Erase everything?", (close) => {
    const id = new Field("confirm", `Type ${tenant} to erase all of its history`, text({ autofocus: true }));
    const send = async () => {
      if (id.value.trim() !== tenant) throw refuse("confirm", `This is not ${tenant}.`);
      close(true);
    };
    return [h("p", null, "No attempt and no parked delivery of before is shown any more, and none can be replayed. This cannot be taken back."),
      form({ label: "Erase everything", fields: [id], send, submit: "Erase", children: id.element, extra: h("button", { type: "button", onclick: () => close() }, "Cancel") })];
  });
  if (sure) await erase(tenant, { all: true }, "Everything until now", load);
}

async function erase(tenant, wish, what, load) {
  const { projection } = await post(`${path("tenants", tenant)}/erasures`, wish);
  if (projection === "pending") say("note", `${what}: noted. It is taken out of the database as soon as that works again, and is not shown any more.`);
  else say("good", `${what}: erased, and not shown any more.`);
  await load();
}

function erasures(all) {
  return table("Erased, newest first", [{ label: "Time", class: "narrow" }, { label: "What" }, { label: "Who" }], all.map((erasure) => [
    when(erasure.time),
    erasure.subject === null ? h("strong", null, "everything until then") : h("code", null, erasure.subject),
    erasure.by?.name ?? h("span", { class: "muted" }, "not recorded"),
  ]), "Nothing was erased.");
}
