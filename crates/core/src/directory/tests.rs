//! Tests of the directory.

use serde_json::json;

use super::*;
use crate::account::Token;
use crate::schedule::Schedule;
use crate::topics::{Partition, Topics, TopicsConfig};

fn apply(
    directory: &mut Directory,
    role: Role,
    key: &str,
    value: Option<serde_json::Value>,
) -> Result<(), InvalidConfig> {
    apply_at(directory, role, key, value, 0)
}

fn apply_at(
    directory: &mut Directory,
    role: Role,
    key: &str,
    value: Option<serde_json::Value>,
    second: i64,
) -> Result<(), InvalidConfig> {
    let topics = Topics::new(&TopicsConfig::default(), Schedule::default().tiers());
    let value = value.map(|value| value.to_string());
    let record = Record {
        partition: Partition {
            topic: topics.find(role).unwrap(),
            index: 0,
        },
        offset: 3,
        appended: Timestamp::from_millis(second * 1000),
        key: Some(key.as_bytes()),
        headers: &[],
        value: value.as_deref().map(str::as_bytes),
    };
    directory.apply(role, &record)
}

fn webhook(id: u128, tenant: &str, name: &str, pattern: &str) -> serde_json::Value {
    json!({
        "version": 1, "id": Uuid::from_u128(id), "tenant": tenant, "name": name,
        "subscription": [pattern], "url": "http://x/", "authentication": {"method": "none"},
        "enabled": true, "generation": 0, "created": Timestamp::EPOCH, "updated": Timestamp::EPOCH,
        "a_field_of_the_future": 1,
    })
}

fn subscribed(directory: &Directory, tenant: &str, name: &str) -> Vec<u128> {
    let tenant = TenantId::parse(tenant).unwrap();
    directory
        .subscribed(&tenant, name)
        .map(|webhook| webhook.id.as_u128())
        .collect()
}

/// R1, R4: nothing until configured, then by pattern, and never across tenants.
#[test]
fn subscription_by_tenant_and_pattern() {
    let mut directory = Directory::default();
    assert!(subscribed(&directory, "a", "cdr.completed").is_empty());
    for (id, tenant, name, pattern) in [
        (1, "a", "cdr", "cdr.*"),
        (2, "a", "all", "*"),
        (3, "b", "cdr", "cdr.*"),
    ] {
        let value = webhook(id, tenant, name, pattern);
        apply(
            &mut directory,
            Role::Webhooks,
            &format!("{tenant}/{name}"),
            Some(value),
        )
        .unwrap();
    }
    assert_eq!(subscribed(&directory, "a", "cdr.completed"), [2, 1]);
    assert_eq!(subscribed(&directory, "a", "call.started"), [2]);
    assert_eq!(subscribed(&directory, "b", "cdr.completed"), [3]);
    assert!(subscribed(&directory, "b", "call.started").is_empty());
    apply(&mut directory, Role::Webhooks, "a/all", None).unwrap();
    assert!(subscribed(&directory, "a", "call.started").is_empty());
    assert!(directory.webhook_by_id(Uuid::from_u128(2)).is_none());
}

#[test]
fn a_webhook_that_is_made_again_has_a_new_identity() {
    let mut directory = Directory::default();
    for id in [1, 2] {
        let value = webhook(id, "a", "cdr", "cdr.*");
        apply(&mut directory, Role::Webhooks, "a/cdr", Some(value)).unwrap();
    }
    assert!(directory.webhook_by_id(Uuid::from_u128(1)).is_none());
    assert!(directory.webhook_by_id(Uuid::from_u128(2)).is_some());
    assert_eq!(directory.webhook_count(), 1);
}

/// R14: a verdict holds for its own generation only.
#[test]
fn verdicts_do_not_outlive_their_generation() {
    let mut directory = Directory::default();
    let id = Uuid::from_u128(1);
    for (generation, disabled) in [(3, true), (2, false), (4, false)] {
        let mut value = webhook(1, "a", "cdr", "cdr.*");
        value["generation"] = generation.into();
        apply(&mut directory, Role::Webhooks, "a/cdr", Some(value)).unwrap();
        let health = json!({
            "version": 1, "webhook": id, "tenant": "a", "generation": 3, "state": "disabled",
            "since": Timestamp::EPOCH, "reason": "all failed",
        });
        apply(&mut directory, Role::Health, &id.to_string(), Some(health)).unwrap();
        let configured = directory.webhook_by_id(id).unwrap();
        assert_eq!(directory.is_disabled(configured), disabled, "{generation}");
    }
    apply(&mut directory, Role::Health, &id.to_string(), None).unwrap();
    assert!(directory.health.is_empty());
}

/// DL6: from the record that paused or disabled it, until it is neither.
#[test]
fn since_when_a_webhook_is_off() {
    let mut directory = Directory::default();
    let id = Uuid::from_u128(1);
    let configured = |enabled: bool, generation: u64| {
        let mut value = webhook(1, "a", "cdr", "*");
        value["enabled"] = enabled.into();
        value["generation"] = generation.into();
        ("a/cdr".to_owned(), Role::Webhooks, Some(value))
    };
    let verdict = |state: &str| {
        let value = json!({
            "version": 1, "webhook": id, "tenant": "a", "generation": 0, "state": state,
            "since": Timestamp::EPOCH, "reason": "",
        });
        (id.to_string(), Role::Health, Some(value))
    };
    let steps = [
        (configured(true, 0), None),
        (configured(false, 0), Some(1)),
        (verdict("disabled"), Some(1)),
        (configured(true, 0), Some(1)),
        (verdict("healthy"), None),
        (verdict("disabled"), Some(5)),
        (configured(true, 1), None),
        (configured(false, 1), Some(7)),
        (("a/cdr".to_owned(), Role::Webhooks, None), None),
    ];
    for (second, ((key, role, value), off)) in (0..).zip(steps) {
        apply_at(&mut directory, role, &key, value, second).unwrap();
        let since = off.map(|second: i64| Timestamp::from_millis(second * 1000));
        assert_eq!(directory.off_since(id), since, "{second}");
    }
    assert!(directory.off.is_empty());
}

#[test]
fn tokens_are_found_by_id_and_text() {
    let mut directory = Directory::default();
    let id = Uuid::from_u128(5);
    let scopes = [crate::account::Scope::Publish].into();
    let (token, text) = Token::issue(
        id,
        "ops".to_owned(),
        None,
        scopes,
        Timestamp::EPOCH,
        [7; 32],
    );
    let value = serde_json::to_value(&token).unwrap();
    apply(&mut directory, Role::Tokens, &id.to_string(), Some(value)).unwrap();
    assert_eq!(directory.token(id).unwrap().value, token);
    assert_eq!(directory.verify_token(text.expose()), Some(&token));
    let other = text.expose().replace('7', "8");
    assert_eq!(directory.verify_token(&other), None);
}

/// A tenant is there as long as it or one of its webhooks is; either is found by all its names.
#[test]
fn tenants_and_webhooks_are_found_and_forgotten() {
    let mut directory = Directory::default();
    let id = TenantId::parse("a").unwrap();
    let tenant = json!({
        "version": 1, "id": "a", "title": "A", "created": Timestamp::EPOCH,
        "updated": Timestamp::EPOCH,
    });
    apply(&mut directory, Role::Tenants, "a", Some(tenant)).unwrap();
    for (number, name) in [(1, "cdr"), (2, "all")] {
        let value = webhook(number, "a", name, "*");
        apply(
            &mut directory,
            Role::Webhooks,
            &format!("a/{name}"),
            Some(value),
        )
        .unwrap();
    }
    assert_eq!(directory.tenant(&id).unwrap().value.id, id);
    let found = |text: &str| {
        let webhook = directory.webhook(&id, text)?;
        Some(webhook.value.id.as_u128())
    };
    assert_eq!(found("cdr"), Some(1));
    assert_eq!(found(&Uuid::from_u128(2).to_string()), Some(2));
    assert_eq!(found(&Uuid::from_u128(3).to_string()), None);
    assert_eq!(directory.webhook_count(), 2);
    apply(&mut directory, Role::Tenants, "a", None).unwrap();
    assert!(directory.tenant(&id).is_none());
    for name in ["cdr", "all"] {
        assert_eq!(directory.tenants.len(), 1);
        apply(&mut directory, Role::Webhooks, &format!("a/{name}"), None).unwrap();
    }
    assert!(directory.tenants.is_empty());
}

#[test]
fn a_record_that_cannot_be_read_changes_nothing() {
    let mut directory = Directory::default();
    let value = webhook(1, "a", "cdr", "cdr.*");
    apply(&mut directory, Role::Webhooks, "a/cdr", Some(value)).unwrap();
    for (key, value) in [
        ("a/cdr", json!({"version": 1})),
        ("a/cdr", webhook(9, "b", "cdr", "*")),
        ("nonsense", json!({})),
        ("a/cdr", json!([])),
    ] {
        assert!(apply(&mut directory, Role::Webhooks, key, Some(value)).is_err());
    }
    assert_eq!(subscribed(&directory, "a", "cdr.completed"), [1]);
    assert!(apply(&mut directory, Role::Tokens, "x", None).is_err());
    assert_eq!(directory.unreadable(), 2, "two keys");
}

/// Otherwise nobody would see that it was mended before everything is started anew.
#[test]
fn a_record_that_cannot_be_read_counts_until_it_is_replaced() {
    let mut directory = Directory::default();
    let unreadable = |directory: &mut Directory, key: &str, value: Option<_>| {
        let _ = apply(directory, Role::Webhooks, key, value);
        directory.unreadable()
    };
    let directory = &mut directory;
    assert_eq!(unreadable(directory, "a/cdr", Some(json!([]))), 1);
    assert_eq!(unreadable(directory, "a/all", Some(json!([]))), 2);
    let right = webhook(1, "a", "cdr", "*");
    assert_eq!(unreadable(directory, "a/cdr", Some(right)), 1);
    assert_eq!(unreadable(directory, "nonsense", Some(json!({}))), 2);
    assert_eq!(unreadable(directory, "a/all", None), 1);
    assert_eq!(unreadable(directory, "nonsense", None), 0);
    // The same key of another topic is another one.
    assert_eq!(unreadable(directory, "a", Some(json!({}))), 1);
    apply(directory, Role::Tenants, "a", None).unwrap();
    assert_eq!(directory.unreadable(), 1);
}

/// What a record is about stands in its key and in its value: where they differ, neither is
/// believed.
#[test]
fn a_record_about_something_else_than_its_key_is_refused() {
    let (one, two) = (
        Uuid::from_u128(1).to_string(),
        Uuid::from_u128(2).to_string(),
    );
    let tenant = |id: &str| {
        json!({ "version": 1, "id": id, "title": "T", "created": Timestamp::EPOCH,
                "updated": Timestamp::EPOCH })
    };
    let token = |id: &str| {
        json!({ "version": 1, "id": id, "name": "pbx", "tenant": "a", "hash": "00",
                "created": Timestamp::EPOCH })
    };
    let health = |id: &str| {
        json!({ "version": 1, "webhook": id, "tenant": "a", "generation": 0,
                "state": "disabled", "since": Timestamp::EPOCH, "reason": "" })
    };
    let mut directory = Directory::default();
    for (role, key, right, wrong) in [
        (Role::Tenants, "a", tenant("a"), tenant("b")),
        (Role::Tokens, &*one, token(&one), token(&two)),
        (Role::Health, &one, health(&one), health(&two)),
    ] {
        apply(&mut directory, role, key, Some(right)).unwrap();
        let error = apply(&mut directory, role, key, Some(wrong)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(key) && text.contains("it is about"), "{text}");
    }
    assert_eq!(directory.tenants()[0].value.id.as_str(), "a");
    assert_eq!(directory.tokens().count(), 1);
    assert_eq!(
        directory.health[&Uuid::from_u128(1)].webhook.to_string(),
        one
    );
    assert_eq!(directory.unreadable(), 3);
}

/// Two records that claim one id: removing the one leaves the other.
#[test]
fn a_claimed_id_is_not_removed_with_its_claimant() {
    let mut directory = Directory::default();
    for name in ["first", "second"] {
        let value = webhook(1, "a", name, "*");
        apply(
            &mut directory,
            Role::Webhooks,
            &format!("a/{name}"),
            Some(value),
        )
        .unwrap();
    }
    apply(&mut directory, Role::Webhooks, "a/first", None).unwrap();
    assert_eq!(
        directory
            .webhook_by_id(Uuid::from_u128(1))
            .unwrap()
            .name
            .as_str(),
        "second"
    );
}

#[test]
fn replays_are_known_by_their_webhook_and_forgotten() {
    let mut directory = Directory::default();
    let id = Uuid::from_u128(1);
    let jobs = json!({ "version": 1, "webhook": id, "tenant": "a" });
    apply(
        &mut directory,
        Role::Jobs,
        &id.to_string(),
        Some(jobs.clone()),
    )
    .unwrap();
    assert_eq!(directory.jobs(id).unwrap().value.webhook, id);
    assert_eq!(directory.all_jobs().count(), 1);
    let two = Uuid::from_u128(2);
    apply(&mut directory, Role::Jobs, &two.to_string(), Some(jobs)).unwrap_err();
    assert!(directory.jobs(two).is_none());
    apply(&mut directory, Role::Jobs, &id.to_string(), None).unwrap();
    assert!(directory.jobs(id).is_none());
}
