//! The publisher as a program that embeds it sees it.

use ringback_core::event::{Event, EventName, Source, Subject, TenantId};
use ringback_core::log::{Log as _, partition_of};
use ringback_core::time::Timestamp;
use ringback_producer::{PublishError, Publisher, PublisherOptions};
use uuid::Uuid;

use super::faults::Fault;
use super::rig::Rig;

fn event(name: &str, subject: Option<&str>) -> Event {
    Event {
        id: Uuid::now_v7(),
        name: EventName::parse(name).unwrap(),
        time: Timestamp::EPOCH,
        tenant: TenantId::parse("acme").unwrap(),
        source: Source::parse("test").unwrap(),
        subject: subject.map(|subject| Subject::parse(subject).unwrap()),
        data: "{}".into(),
        backfill: false,
        traceparent: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_are_for_ringback_itself() {
    let rig = Rig::start().await;
    let outside = Publisher::start(&rig.log, PublisherOptions::default()).unwrap();
    let inside = Publisher::start_internal(&rig.log, PublisherOptions::default()).unwrap();
    for name in ["webhook.disabled", "source.gap"] {
        let refused = outside.publish(event(name, None)).await.unwrap_err();
        assert!(
            matches!(refused, PublishError::Reserved { .. }),
            "{refused}"
        );
        inside.publish(event(name, None)).await.unwrap();
    }
    assert_eq!(rig.accepted().len(), 2);
}

/// Each result belongs to the event at its place, whatever became of its neighbours.
#[tokio::test(flavor = "multi_thread")]
async fn results_stand_in_the_order_of_the_events() {
    let rig = Rig::start().await;
    let publisher = Publisher::start(&rig.log, PublisherOptions::default()).unwrap();
    rig.faults
        .next([Fault::None, Fault::Unacknowledged, Fault::None]);
    let names = [
        "cdr.completed",
        "webhook.failing",
        "call.started",
        "agent.status_changed",
    ];
    let mut events = names.map(|name| event(name, Some("call/1")));
    let results = publisher.publish_batch(&mut events).await;
    let topics = rig.log.topics();
    let partitions = topics
        .spec(results[0].as_ref().unwrap().partition.topic)
        .partitions;
    // One subject's events stay together.
    let expected = partition_of(b"acme/call/1", partitions);
    assert_eq!(results[0].as_ref().unwrap().partition.index, expected);
    assert!(matches!(results[1], Err(PublishError::Reserved { .. })));
    assert!(matches!(results[2], Err(PublishError::Unavailable { id, .. }) if id == events[2].id));
    assert_eq!(results[3].as_ref().unwrap().partition.index, expected);
}
