//! What each component may do in Kafka, drawn from the table of topics: no more than it needs.

use std::fmt;

use ringback_core::topics::{Role, TopicSpec, Topics};

/// A kind of process that has a Kafka user of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Component {
    /// Takes events in.
    Producer,
    /// Delivers them.
    Dispatcher,
    /// Judges webhooks.
    Metrics,
    /// Administers; also creates topics.
    Admin,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Producer, Self::Dispatcher, Self::Metrics, Self::Admin];

    /// Its name in the table of topics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Dispatcher => "dispatcher",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }

    fn writes(self, spec: &TopicSpec) -> bool {
        spec.writer == self.as_str()
    }

    fn reads(self, spec: &TopicSpec) -> bool {
        let mut readers = spec.readers.split(", ");
        readers.any(|reader| reader == self.as_str() || reader == "all")
    }
}

/// What kind of thing a grant is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Resource {
    /// Topics.
    Topic,
    /// Consumer groups.
    Group,
    /// The `transactional.id` of configuration writes.
    TransactionalId,
}

/// What is allowed, in Kafka's words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// Reading records; committing offsets.
    Read,
    /// Appending records.
    Write,
    /// Creating topics.
    Create,
    /// Seeing that it exists, and where.
    Describe,
    /// Seeing its settings.
    DescribeConfigs,
}

/// One grant (an allowing ACL from any host).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// On what kind of thing.
    pub resource: Resource,
    /// On which one, or on all whose names begin like this.
    pub name: String,
    /// Whether the name is only how the names begin.
    pub prefixed: bool,
    /// To do what.
    pub operation: Operation,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.prefixed { "*" } else { "" };
        let resource = match self.resource {
            Resource::Topic => "topic",
            Resource::Group => "group",
            Resource::TransactionalId => "transactional-id",
        };
        write!(f, "{:?} {resource} `{}{star}`", self.operation, self.name)
    }
}

/// The grants of a component, for these topics and this `log.kafka.group_prefix`.
pub fn grants(component: Component, topics: &Topics, group_prefix: &str) -> Vec<Grant> {
    let mut grants = Vec::new();
    let mut grant = |resource, name: &str, prefixed, operation| {
        let grant = Grant {
            resource,
            name: name.to_owned(),
            prefixed,
            operation,
        };
        if !grants.contains(&grant) {
            grants.push(grant);
        }
    };
    // The check at the start asks about all of them.
    let prefix = topics.iter().next().map_or("", |(_, spec)| {
        spec.full_name.strip_suffix(&spec.name).unwrap_or_default()
    });
    grant(Resource::Topic, prefix, true, Operation::Describe);
    grant(Resource::Topic, prefix, true, Operation::DescribeConfigs);
    if component == Component::Admin {
        grant(Resource::Topic, prefix, true, Operation::Create);
    }
    for (_, spec) in topics.iter() {
        // A changed schedule makes new tiers, whose names begin like the others'.
        let (name, prefixed) = match spec.role {
            Role::Retry(_) => (format!("{prefix}retry."), true),
            Role::Defer(_) => (format!("{prefix}defer."), true),
            _ => (spec.full_name.clone(), false),
        };
        if component.reads(spec) {
            grant(Resource::Topic, &name, prefixed, Operation::Read);
        }
        if component.writes(spec) {
            grant(Resource::Topic, &name, prefixed, Operation::Write);
        }
    }
    match component {
        Component::Dispatcher | Component::Metrics => {
            let group = format!("{group_prefix}{}.", component.as_str());
            grant(Resource::Group, &group, true, Operation::Read);
        }
        Component::Admin => {
            let group = format!("{group_prefix}admin.");
            grant(Resource::Group, &group, true, Operation::Read);
            let id = format!("{group_prefix}config");
            grant(Resource::TransactionalId, &id, false, Operation::Write);
            grant(Resource::TransactionalId, &id, false, Operation::Describe);
            // Shows how far each group is, and who is in it.
            grant(Resource::Group, group_prefix, true, Operation::Describe);
        }
        Component::Producer => {}
    }
    grants
}

#[cfg(test)]
mod tests {
    use ringback_core::schedule::Schedule;
    use ringback_core::topics::TopicsConfig;

    use super::*;

    /// The page for operators is this table.
    #[test]
    fn the_documented_grants_are_these() {
        let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
        let rows = Component::ALL.map(|component| {
            let grants = grants(component, &topics, "ringback.");
            let grants: Vec<_> = grants.iter().map(Grant::to_string).collect();
            format!("| `{}` | {} |\n", component.as_str(), grants.join("; "))
        });
        let page = include_str!("../../../../docs/kafka.md");
        for row in rows {
            assert!(page.contains(&row), "docs/kafka.md lacks:\n{row}");
        }
    }
}
