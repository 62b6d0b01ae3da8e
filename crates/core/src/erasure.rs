//! Erasures: what is no longer to be shown of a tenant, or of a subject such as a call. The log forgets it
//! by retention; until then an erasure keeps it from being shown again.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::audit::Actor;
use crate::event::{Subject, TenantId};
use crate::log::Record;
use crate::record::header;
use crate::time::Timestamp;

/// Version of the records written here.
pub const ERASURE_VERSION: u32 = 1;

/// A record of topic `erasures`: it is about what was appended before it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Erasure {
    /// Version of the record.
    pub version: u32,
    /// Whose.
    pub tenant: TenantId,
    /// Of what; `None`: everything of the tenant.
    pub subject: Option<Subject>,
    /// Who asked; `None` in records of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
}

impl Erasure {
    /// Reads a record; `None` when it cannot be read.
    pub fn read(record: &Record<'_>) -> Option<Self> {
        serde_json::from_slice(record.value?).ok()
    }
}

/// All that was erased, and when.
#[derive(Clone, Default, Debug)]
pub struct Erasures(HashMap<TenantId, OfTenant>);

#[derive(Clone, Default, Debug)]
struct OfTenant {
    /// Everything until then.
    all: Option<Timestamp>,
    subjects: HashMap<Subject, Timestamp>,
}

impl Erasures {
    /// Notes an erasure that was appended `at`.
    pub fn add(&mut self, erasure: &Erasure, at: Timestamp) {
        let tenant = self.0.entry(erasure.tenant.clone()).or_default();
        match &erasure.subject {
            None => tenant.all = tenant.all.max(Some(at)),
            Some(subject) => {
                let until = tenant.subjects.entry(subject.clone()).or_insert(at);
                *until = at.max(*until);
            }
        }
    }

    /// Whether what was appended then, about this subject, is erased.
    pub fn cover(&self, tenant: &TenantId, subject: Option<&Subject>, appended: Timestamp) -> bool {
        let Some(erased) = self.0.get(tenant) else {
            return false;
        };
        let of_subject = subject.and_then(|subject| erased.subjects.get(subject));
        erased.all.max(of_subject.copied()) >= Some(appended)
    }

    /// The same of a record of a delivery, by its headers.
    pub fn cover_delivery(&self, record: &Record<'_>) -> bool {
        about(record)
            .is_some_and(|(tenant, subject)| self.cover(&tenant, subject.as_ref(), record.appended))
    }
}

/// Whose a delivery is and what it is about, by the headers of its record.
pub fn about(record: &Record<'_>) -> Option<(TenantId, Option<Subject>)> {
    let text = |name| std::str::from_utf8(record.header(name)?).ok();
    let tenant = TenantId::parse(text(header::TENANT)?).ok()?;
    let subject = text(header::SUBJECT).and_then(|subject| Subject::parse(subject).ok());
    Some((tenant, subject))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Header;
    use crate::schedule::Schedule;
    use crate::topics::{Partition, Role, Topics, TopicsConfig};

    #[test]
    fn what_came_before_an_erasure_is_covered() {
        let (acme, globex) = ("acme", "globex");
        let tenant = |id: &str| TenantId::parse(id).unwrap();
        let subject = |text: &str| Subject::parse(text).unwrap();
        let at = Timestamp::from_millis;
        let mut erasures = Erasures::default();
        let call = Erasure {
            version: ERASURE_VERSION,
            tenant: tenant(acme),
            subject: Some(subject("call/1")),
            by: None,
        };
        erasures.add(&call, at(10));
        erasures.add(&call, at(5));
        let covers = |erasures: &Erasures, id: &str, about: Option<&str>, then: i64| {
            let about = about.map(subject);
            erasures.cover(&tenant(id), about.as_ref(), at(then))
        };
        assert!(covers(&erasures, acme, Some("call/1"), 10));
        assert!(!covers(&erasures, acme, Some("call/1"), 11));
        assert!(!covers(&erasures, acme, Some("call/2"), 1));
        assert!(!covers(&erasures, acme, None, 1));
        assert!(!covers(&erasures, globex, Some("call/1"), 1));
        let all = Erasure {
            subject: None,
            ..call
        };
        erasures.add(&all, at(20));
        assert!(covers(&erasures, acme, None, 20) && covers(&erasures, acme, Some("call/1"), 15));
        assert!(!covers(&erasures, acme, None, 21));
    }

    fn record<'a>(headers: &'a [Header<'a>], value: Option<&'a [u8]>) -> Record<'a> {
        let topic = Topics::new(&TopicsConfig::default(), Schedule::default().tiers())
            .find(Role::Erasures)
            .unwrap();
        Record {
            partition: Partition { topic, index: 0 },
            offset: 0,
            appended: Timestamp::from_millis(10),
            key: None,
            headers,
            value,
        }
    }

    #[test]
    fn records_are_read_or_left_out() {
        let text = br#"{"version":1,"tenant":"acme","subject":null,"of_the_future":1}"#;
        let expected = Erasure {
            version: ERASURE_VERSION,
            tenant: TenantId::parse("acme").unwrap(),
            subject: None,
            by: None,
        };
        assert_eq!(Erasure::read(&record(&[], Some(text))), Some(expected));
        assert_eq!(Erasure::read(&record(&[], Some(b"{"))), None);
        assert_eq!(Erasure::read(&record(&[], None)), None);
    }

    #[test]
    fn a_delivery_is_covered_by_what_its_headers_say() {
        let header = |name, value| Header { name, value };
        let tenant = header(header::TENANT, b"acme".as_slice());
        let subject = header(header::SUBJECT, b"call/1".as_slice());
        let read = |text| Subject::parse(text).unwrap();
        let acme = TenantId::parse("acme").unwrap();
        assert_eq!(
            about(&record(&[tenant, subject], None)),
            Some((acme.clone(), Some(read("call/1"))))
        );
        assert_eq!(about(&record(&[tenant], None)), Some((acme.clone(), None)));
        assert_eq!(about(&record(&[subject], None)), None);
        let mut erasures = Erasures::default();
        let call = Erasure {
            version: ERASURE_VERSION,
            tenant: acme,
            subject: Some(read("call/1")),
            by: None,
        };
        erasures.add(&call, Timestamp::from_millis(9));
        assert!(!erasures.cover_delivery(&record(&[tenant, subject], None)));
        erasures.add(&call, Timestamp::from_millis(10));
        assert!(erasures.cover_delivery(&record(&[tenant, subject], None)));
        assert!(!erasures.cover_delivery(&record(&[tenant], None)));
        assert!(!erasures.cover_delivery(&record(&[subject], None)));
    }
}
