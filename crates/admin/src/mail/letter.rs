//! From notices to one mail for each address. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use ringback_core::directory::Directory;
use ringback_core::event::TenantId;
use ringback_core::health::State;
use ringback_core::mail_address::MailAddress;
use ringback_core::notice::Notice;
use ringback_core::webhook::WebhookName;
use uuid::Uuid;

/// Most webhooks that a mail lists; of the others it says how many they are.
const LISTED_MAX: usize = 100;
/// Longest reason, in characters.
const REASON_MAX: usize = 300;
/// Makes keys and ids of letters.
const NAMESPACE: Uuid = Uuid::from_u128(0x7269_6e67_6261_636b_8000_6c65_7474_6572);

/// A mail to one address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Letter {
    /// Which address it is for: sorts the letters of a batch, and tells nobody the address.
    pub(super) key: Uuid,
    /// The same for the same notices to the same address.
    pub(super) id: Uuid,
    pub(super) to: MailAddress,
    pub(super) subject: String,
    pub(super) text: String,
}

/// A webhook as a mail shows it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry<'a> {
    /// Worst first.
    rank: u8,
    tenant: &'a TenantId,
    name: String,
    host: Option<String>,
    /// Its page in the portal, unless it is gone.
    page: Option<String>,
    since: String,
    reason: String,
}

/// The letters about these notices, by key. `operators` get them all, the recipients of a tenant what is
/// about its webhooks; of each webhook the newest.
pub(super) fn letters(
    notices: &[Notice],
    directory: &Directory,
    operators: &[MailAddress],
    portal: Option<&str>,
) -> Vec<Letter> {
    let mut newest = HashMap::new();
    for notice in notices {
        newest.insert(notice.about.webhook, notice);
    }
    let mut mailboxes: BTreeMap<MailAddress, Vec<&Notice>> = BTreeMap::new();
    for notice in newest.into_values() {
        let tenant = directory.tenant(&notice.tenant);
        let own = tenant.iter().flat_map(|tenant| &tenant.value.notify);
        let recipients: BTreeSet<_> = own.chain(operators).collect();
        for recipient in recipients {
            mailboxes.entry(recipient.clone()).or_default().push(notice);
        }
    }
    let mut letters: Vec<_> = mailboxes
        .into_iter()
        .map(|(to, notices)| letter(to, &notices, directory, portal))
        .collect();
    letters.sort_by_key(|letter| letter.key);
    letters
}

fn letter(
    to: MailAddress,
    notices: &[&Notice],
    directory: &Directory,
    portal: Option<&str>,
) -> Letter {
    let portal = portal.map(base);
    let mut entries: Vec<_> = notices
        .iter()
        .map(|n| entry(n, directory, portal))
        .collect();
    entries.sort();
    // Not of the text: where a mail is sent twice, it is the same one.
    let mut identity: Vec<_> = notices
        .iter()
        .map(|n| format!("{} {} {}", n.about.webhook, n.about.state, n.since))
        .collect();
    identity.sort();
    identity.push(to.to_string());
    Letter {
        key: Uuid::new_v5(&NAMESPACE, to.as_str().as_bytes()),
        id: Uuid::new_v5(&NAMESPACE, identity.join("\n").as_bytes()),
        subject: subject(&entries),
        text: text(&entries, portal),
        to,
    }
}

/// What stands before `/portal/` in addresses: whoever was told of the portal may have entered that.
fn base(url: &str) -> &str {
    let url = url.trim_end_matches('/');
    url.strip_suffix("/portal").unwrap_or(url)
}

fn entry<'a>(notice: &'a Notice, directory: &Directory, portal: Option<&str>) -> Entry<'a> {
    let about = &notice.about;
    let webhook = directory.webhook_by_id(about.webhook);
    let webhook = webhook.filter(|webhook| webhook.tenant == notice.tenant);
    let known = webhook.map(|webhook| webhook.name.to_string());
    // Whatever stands in a record is not trusted to be a name.
    let named = || {
        about
            .name
            .as_deref()
            .filter(|n| WebhookName::parse(n).is_ok())
    };
    let page = |portal, name| format!("{portal}/portal/tenants/{}/webhooks/{name}", notice.tenant);
    Entry {
        // Names have no character that means something in a URL.
        page: portal
            .zip(known.as_deref())
            .map(|(portal, name)| page(portal, name)),
        rank: match about.state {
            State::Disabled => 0,
            State::Failing => 1,
            State::Healthy => 2,
        },
        tenant: &notice.tenant,
        name: known
            .or_else(|| named().map(str::to_owned))
            .unwrap_or_else(|| about.webhook.to_string()),
        host: webhook.and_then(|webhook| host(&webhook.url)),
        since: notice.since.to_string(),
        reason: one_line(&about.reason),
    }
}

/// Scheme, host and port of a URL: its path may hold what is nobody else's business.
fn host(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    Some(format!("{scheme}://{}", one_line(host)))
}

fn one_line(text: &str) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(REASON_MAX).map(visible).collect()
}

const WORDS: [&str; 3] = ["disabled", "failing", "recovered"];

/// Of ids and names only, which are ASCII: nothing in it can begin another header.
fn subject(entries: &[Entry<'_>]) -> String {
    if let [entry] = entries {
        let word = WORDS[usize::from(entry.rank)];
        return format!("[Ringback] {}/{}: {word}", entry.tenant, entry.name);
    }
    let counts = counts(entries);
    format!("[Ringback] {} webhooks: {counts}", entries.len())
}

fn counts(entries: &[Entry<'_>]) -> String {
    let count = |rank: usize| {
        entries
            .iter()
            .filter(|e| usize::from(e.rank) == rank)
            .count()
    };
    let parts: Vec<_> = WORDS
        .iter()
        .enumerate()
        .map(|(rank, word)| (count(rank), word))
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    parts.join(", ")
}

fn text(entries: &[Entry<'_>], portal: Option<&str>) -> String {
    let mut text = String::new();
    let out = &mut text;
    // Writing to a String cannot fail.
    for entry in entries.iter().take(LISTED_MAX) {
        let word = WORDS[usize::from(entry.rank)];
        let _ = writeln!(out, "{}/{}: {word}", entry.tenant, entry.name);
        if let Some(host) = &entry.host {
            let _ = writeln!(out, "  receiver: {host}");
        }
        let _ = writeln!(out, "  since:    {}", entry.since);
        let _ = writeln!(out, "  why:      {}", entry.reason);
        if let Some(page) = &entry.page {
            let _ = writeln!(out, "  see:      {page}");
        }
        let _ = writeln!(out);
    }
    if entries.len() > LISTED_MAX {
        let more = entries.len() - LISTED_MAX;
        let _ = writeln!(out, "… and {more} more ({} in all).\n", counts(entries));
    }
    let has = |rank| entries.iter().any(|entry| entry.rank == rank);
    let (tenant, name) = match entries {
        [entry] => (entry.tenant.as_str(), entry.name.as_str()),
        _ => ("TENANT", "WEBHOOK"),
    };
    if has(0) {
        let _ = writeln!(
            out,
            "Disabled: nothing is sent any more, and what would have been is parked. Repair the\n\
             receiver, then enable the webhook again; what was parked can be sent then.\n\
             \x20 ringback webhook enable {tenant} {name}\n"
        );
    }
    if has(1) {
        let _ = writeln!(
            out,
            "Failing: it will be disabled if it goes on like this. See what the receiver answers:\n\
             \x20 ringback attempts list {tenant} {name} --outcome failed\n"
        );
    }
    if has(2) {
        let _ = writeln!(out, "Recovered: nothing needs to be done.\n");
    }
    if let Some(portal) = portal {
        let _ = writeln!(out, "Portal: {portal}/portal/\n");
    }
    let _ = writeln!(
        out,
        "You get this because your address is among the recipients of the tenant's notices, or of\n\
         all notices of this Ringback."
    );
    text
}

#[cfg(test)]
mod tests {
    use ringback_core::log::Record;
    use ringback_core::notice::About;
    use ringback_core::schedule::Schedule;
    use ringback_core::time::Timestamp;
    use ringback_core::topics::{Partition, Role, Topics, TopicsConfig};
    use serde_json::{Value, json};

    use super::*;

    fn apply(directory: &mut Directory, role: Role, key: &str, value: &Value) {
        let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        let value = value.to_string();
        let topic = topics.find(role).unwrap();
        let record = Record {
            partition: Partition { topic, index: 0 },
            offset: 0,
            appended: Timestamp::EPOCH,
            key: Some(key.as_bytes()),
            headers: &[],
            value: Some(value.as_bytes()),
        };
        directory.apply(role, &record).unwrap();
    }

    fn notice(webhook: u128, name: &str) -> Notice {
        Notice {
            tenant: TenantId::parse("acme").unwrap(),
            since: Timestamp::EPOCH,
            about: About {
                webhook: Uuid::from_u128(webhook),
                name: Some(name.to_owned()),
                generation: 0,
                state: State::Failing,
                reason: "no answer".to_owned(),
            },
        }
    }

    /// One that is gone has no page any more.
    #[test]
    fn each_webhook_is_linked_to_its_page() {
        let mut directory = Directory::default();
        let tenant = json!({ "version": 1, "id": "acme", "title": "Acme",
            "notify": ["it@acme.example"], "created": Timestamp::EPOCH });
        apply(&mut directory, Role::Tenants, "acme", &tenant);
        let webhook = json!({
            "version": 1, "id": Uuid::from_u128(1), "tenant": "acme", "name": "crm.2",
            "subscription": ["*"], "url": "http://x/", "authentication": { "method": "none" },
            "enabled": true, "generation": 0, "created": Timestamp::EPOCH, "updated": Timestamp::EPOCH,
        });
        apply(&mut directory, Role::Webhooks, "acme/crm.2", &webhook);
        let notices = [notice(1, "an-old-name"), notice(2, "gone")];
        let text = |portal| letters(&notices, &directory, &[], portal)[0].text.clone();
        let page = "see:      https://r.example/portal/tenants/acme/webhooks/crm.2\n";
        for url in [
            "https://r.example",
            "https://r.example/",
            "https://r.example/portal/",
        ] {
            let text = text(Some(url));
            assert_eq!(text.matches("see: ").count(), 1, "{text}");
            assert!(text.contains(page), "{url}: {text}");
            assert!(
                text.contains("Portal: https://r.example/portal/\n"),
                "{text}"
            );
        }
        let text = text(None);
        assert!(
            !text.contains("see: ") && !text.contains("Portal: "),
            "{text}"
        );
    }
}
