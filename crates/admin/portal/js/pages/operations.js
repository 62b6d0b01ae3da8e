// For operators: which webhooks fail, how far the pipeline is behind, and which dispatchers there are.

import { get, path } from "../api.js";
import { h } from "../dom.js";
import { ago, number, seconds } from "../format.js";
import { badge, card, facts, into, pageHead, stateBadge, table, tabs } from "../ui.js";

/** Between two looks, in milliseconds. */
const LOOK = 5000;

function page(title, lead, load) {
  const box = h("div", { class: "fields" });
  let timer = null;
  let ended = false;
  const look = async () => {
    // What somebody reads in with the keyboard is not taken from under him.
    if (!box.contains(document.activeElement)) await into(box, load);
    if (!ended) timer = setTimeout(look, LOOK);
  };
  const content = [
    pageHead("Operations"),
    tabs("Operations", [["Failing webhooks", "/portal/operations"], ["Pipeline lag", "/portal/operations/lag"], ["Dispatchers", "/portal/operations/dispatchers"]]),
    card(title, h("p", { class: "muted" }, lead), box)];
  return { title, content, begin: look, dispose: () => { ended = true; clearTimeout(timer); } };
}

async function begun(made) {
  await made.begin();
  return made;
}

export const failing = () => begun(page("Failing webhooks", "Disabled, failing and switched off ones of all tenants; those that are so for longest first.", async () => {
  const { webhooks, counts } = await get("/operations/webhooks");
  return [
    counts && facts([["Webhooks", number(counts.webhooks)], ["Disabled", number(counts.disabled)], ["Failing", number(counts.failing)], ["Off", number(counts.paused)]], "big"),
    table("Failing webhooks", [{ label: "Webhook" }, { label: "State", class: "narrow" }, { label: "Since", class: "narrow" }, { label: "Why" }],
      webhooks.map((webhook) => [
        h("a", { href: `/portal${path("tenants", webhook.tenant)}${path("webhooks", webhook.name)}` }, `${webhook.tenant} / ${webhook.name}`),
        stateBadge(webhook.state), ago(webhook.since), webhook.reason ?? "–"]), "No webhook fails."),
  ];
}));

export const lag = () => begun(page("Pipeline lag", "What waits in each topic for its group of readers, and how old the oldest of it is. Retries and deferrals wait on purpose, for so long.", async () => {
  const [{ stages }, database] = await Promise.all([get("/operations/lag"), status()]);
  return [
    table("Pipeline lag", [{ label: "Topic" }, { label: "Group" }, { label: "Members", class: "num" }, { label: "Records", class: "num" }, { label: "Oldest", class: "num" }, { label: "Waits on purpose", class: "num" }],
      stages.map((stage) => [h("code", null, stage.topic), h("code", null, stage.group), number(stage.members),
        number(stage.records), seconds(stage.oldest_seconds), stage.delay_seconds ? seconds(stage.delay_seconds) : "–"]), "No group of readers is known."),
    database];
}));

/** How the database behind the logs is. */
async function status() {
  let projection;
  try {
    projection = await get("/projection");
  } catch {
    return null;
  }
  const good = ["projecting", "reading"].includes(projection.state);
  return h("div", { class: "fields" }, h("h3", null, "Database of the logs"),
    h("div", { class: "title" }, badge(good ? "good" : projection.state === "none" ? "idle" : "warn", String(projection.state).replaceAll("_", " ")),
      projection.error && h("span", null, projection.error)),
    projection.state !== "none" && facts([["Database", projection.database], ["As of", ago(projection.as_of)], ["Records behind", number(projection.behind)],
      projection.lost > 0 && ["Lost", number(projection.lost)], projection.unreadable > 0 && ["Unreadable", number(projection.unreadable)]]));
}

export const dispatchers = () => begun(page("Dispatchers", "Who does the work now, and which partitions each has.", async () => {
  const { groups } = await get("/operations/dispatchers");
  return groups.map(({ group, component, members, unowned }) => h("div", { class: "fields" },
    h("div", { class: "title" }, h("h3", null, `${component}, group ${group}`), unowned > 0 && badge("warn", `${number(unowned)} partitions without a member`)),
    table(`Members of ${group}`, [{ label: "Member" }, { label: "Host" }, { label: "Partitions" }],
      members.map((member) => [h("code", null, member.id), member.host || "–",
        h("dl", { class: "headers" }, member.partitions.map(({ topic, partitions }) => h("div", null, h("dt", null, topic), h("dd", null, partitions.join(", ")))))]),
      "Nobody is there: what is in these topics waits. Start one.")));
}));
