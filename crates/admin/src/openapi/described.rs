//! What is said about each route.

use super::operation::{Operation, does};
use super::people::*;
use super::shapes::*;
use serde_json::Value;

use crate::health::HealthView;
use crate::operations::{LagView, MembersView, PartitionsView, WebhooksParameters, WorstWebhooks};
use crate::replay::{ReplayAnswer, ReplayForm, ReplayList};
use crate::test_event::{TestForm, TestSent};
use crate::webhook_form::{NewWebhook, WebhookChange};
use crate::{
    accounts, attempts, audit, erasures, export, import, notify, parked, sessions, stats, tenants,
    tokens,
};

/// `None`: nothing is said about it yet, which a test notices.
pub(super) fn operation(method: &str, path: &str) -> Option<Operation> {
    if let Some(of_webhook) = path.strip_prefix("/v1/tenants/{tenant}/webhooks/{webhook}") {
        return of_a_webhook(method, of_webhook);
    }
    let path = path.strip_prefix("/v1")?;
    Some(match (method, path) {
        ("GET", "/openapi.json") => does("This document").answers::<Value>(200),
        ("GET", "/session") => does("Says who has signed in").answers::<Session>(200),
        ("POST", "/session") => does("Signs in, by login and password or by a token")
            .takes::<sessions::SignIn>()
            .answers::<Session>(201),
        ("DELETE", "/session") => does("Signs out").answers_nothing(204),
        ("PUT", "/session/password") => does("Sets one's own password")
            .takes::<sessions::NewPassword>()
            .answers::<Session>(200),
        ("GET", "/accounts") => does("Lists accounts")
            .query::<accounts::ListParameters>()
            .answers::<Accounts>(200),
        ("POST", "/accounts") => {
            does("Adds an account; a password that is not given is made, and shown once")
                .takes::<accounts::NewAccount>()
                .answers::<Account>(201)
        }
        ("GET", "/accounts/{account}") => does("Shows an account").answers::<Account>(200),
        ("PATCH", "/accounts/{account}") => does("Changes an account: what is absent stays")
            .takes::<accounts::Changes>()
            .may_match()
            .answers::<Account>(200),
        ("DELETE", "/accounts/{account}") => does("Removes an account and ends its sessions")
            .may_match()
            .answers::<RemovedAccount>(200),
        ("GET", "/audit") => does("Lists what was done, newest first")
            .query::<audit::ListParameters>()
            .answers::<Audit>(200),
        ("GET", "/tenants/{tenant}/audit") => does("Lists what was done to a tenant's things")
            .query::<audit::ListParameters>()
            .answers::<Audit>(200),
        ("GET", "/tenants/{tenant}/erasures") => does("Lists what was erased, newest first")
            .query::<erasures::ListParameters>()
            .answers::<Erasures>(200),
        ("POST", "/tenants/{tenant}/erasures") => {
            does("Erases what is known of a subject, or of all of a tenant's events")
                .takes::<erasures::Wish>()
                .answers::<Erasure>(202)
        }
        ("GET", "/tenants/{tenant}/notify") => {
            does("Says who gets mail about a tenant's webhooks").answers::<Notify>(200)
        }
        ("PUT", "/tenants/{tenant}/notify") => does("Sets who gets mail about a tenant's webhooks")
            .takes::<notify::Recipients>()
            .may_match()
            .answers::<Tenant>(200),
        ("GET", "/tenants") => does("Lists tenants")
            .query::<tenants::ListParameters>()
            .answers::<Tenants>(200),
        ("POST", "/tenants") => does("Adds a tenant")
            .takes::<tenants::NewTenant>()
            .answers::<Tenant>(201),
        ("GET", "/tenants/{tenant}") => does("Shows a tenant").answers::<Tenant>(200),
        ("PUT", "/tenants/{tenant}") => does("Adds a tenant under this id")
            .takes::<tenants::NewTenant>()
            .header("If-None-Match", "`*`: it only adds")
            .answers::<Tenant>(201),
        ("DELETE", "/tenants/{tenant}") => does("Removes a tenant with its webhooks and tokens")
            .may_match()
            .answers::<RemovedTenant>(200),
        ("GET", "/tenants/{tenant}/webhooks") => {
            does("Lists a tenant's webhooks").answers::<Webhooks>(200)
        }
        ("POST", "/tenants/{tenant}/webhooks") => does("Adds a webhook")
            .takes::<NewWebhook>()
            .answers::<Webhook>(201),
        ("GET", "/tenants/{tenant}/events/{event}") => {
            does("Shows an event with all its deliveries").answers::<Event>(200)
        }
        ("GET", "/tokens") => does("Lists tokens")
            .query::<tokens::ListParameters>()
            .answers::<Tokens>(200),
        ("POST", "/tokens") => does("Adds a token; its text is in this answer only")
            .takes::<tokens::NewToken>()
            .answers::<Token>(201),
        ("DELETE", "/tokens/{token}") => does("Removes a token").answers::<RemovedToken>(200),
        ("GET", "/parked") => does("Lists what is parked and belongs to no webhook")
            .query::<parked::ListParameters>()
            .answers::<AllParked>(200),
        ("GET", "/projection") => {
            does("Says how the projection is").answers::<ProjectionStatus>(200)
        }
        ("POST", "/projection/rebuild") => {
            does("Drops the projection and reads the log again").answers::<Rebuilding>(202)
        }
        ("GET", "/operations/webhooks") => {
            does("Lists webhooks that are disabled, failing or paused")
                .query::<WebhooksParameters>()
                .answers::<WorstWebhooks>(200)
        }
        ("GET", "/operations/lag") => {
            does("Says how far each stage is behind").answers::<LagView>(200)
        }
        ("GET", "/operations/dispatchers") => {
            does("Lists the members of consumer groups").answers::<MembersView>(200)
        }
        ("GET", "/operations/partitions") => {
            does("Lists the partitions of work topics").answers::<PartitionsView>(200)
        }
        ("POST", "/secrets/reseal") => {
            does("Seals all secrets with the primary key").answers::<Resealed>(200)
        }
        ("POST", "/export") => does("Exports a page of the configuration")
            .takes::<export::ExportForm>()
            .answers::<Export>(200),
        ("POST", "/import") => does("Imports a document, or a part of one")
            .takes::<import::ImportForm>()
            .answers::<Imported>(200),
        _ => return None,
    })
}

fn of_a_webhook(method: &str, path: &str) -> Option<Operation> {
    Some(match (method, path) {
        ("GET", "") => does("Shows a webhook").answers::<Webhook>(200),
        ("PUT", "") => does("Adds or replaces a webhook")
            .takes::<NewWebhook>()
            .must_match()
            .header("If-None-Match", "`*`: it only adds")
            .answers::<Webhook>(200)
            .answers::<Webhook>(201),
        ("PATCH", "") => does("Changes a webhook: what is absent stays")
            .takes::<WebhookChange>()
            .must_match()
            .answers::<Webhook>(200),
        ("DELETE", "") => does("Removes a webhook")
            .may_match()
            .answers::<RemovedWebhook>(200),
        ("POST", "/pause") => does("Halts deliveries; they are parked")
            .may_match()
            .answers::<Webhook>(200),
        ("POST", "/resume") => does("Lets deliveries flow again")
            .may_match()
            .answers::<Webhook>(200),
        ("POST", "/enable") => does("Ends a disablement")
            .may_match()
            .answers::<Webhook>(200),
        ("POST", "/test") => does("Sends a test event and shows what came back")
            .takes::<TestForm>()
            .answers::<TestSent>(200)
            .answers::<TestSent>(202),
        ("GET", "/secret") => does("Shows the signing keys").answers::<SigningKeys>(200),
        ("POST", "/secret/rotate") => does("Makes a signing key beside the old one")
            .takes::<RotationFields>()
            .may_match()
            .answers::<SigningKeys>(200),
        ("DELETE", "/secret/ed25519") => does("Signs with Ed25519 no more")
            .may_match()
            .answers::<SigningKeys>(200),
        ("GET", "/attempts") => does("Lists attempts, newest first")
            .query::<attempts::ListParameters>()
            .answers::<Attempts>(200),
        ("GET", "/attempts/stream") => does("Tells attempts as they are made")
            .header("Last-Event-ID", "The id of the last event that was seen")
            .streams(),
        ("GET", "/health") => {
            does("Says how a webhook is, why, and what to do").answers::<HealthView>(200)
        }
        ("GET", "/parked") => does("Lists parked deliveries, newest first")
            .query::<parked::ListParameters>()
            .answers::<ParkedPage>(200),
        ("POST", "/replay") => does("Sends parked deliveries again")
            .takes::<ReplayForm>()
            .answers::<ReplayAnswer>(202),
        ("GET", "/replays") => does("Lists replays, newest first").answers::<ReplayList>(200),
        ("GET", "/replays/{replay}") => {
            does("Says how far a replay is").answers::<ReplayAnswer>(200)
        }
        ("DELETE", "/replays/{replay}") => does("Cancels a replay").answers::<ReplayAnswer>(200),
        ("GET", "/stats") => does("Counts attempts, for charts")
            .query::<stats::StatsParameters>()
            .answers::<Stats>(200),
        _ => return None,
    })
}
