"""A producer in Python: one event in each mode, over HTTP and on Kafka, made by the CloudEvents SDK.

Arguments: the ingest's URL, a token, the tenant, Kafka's brokers or nothing, and the topic.
Prints the ids it gave, one a line, when everything was acknowledged.
"""

import sys
import urllib.request
from datetime import datetime, timezone

from cloudevents.core.bindings import http, kafka
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Producer

ingest, token, tenant, brokers, topic = sys.argv[1:]


def event(mode, **extensions):
    attributes = {
        "id": f"python-{mode}",
        "source": "/pbx/1",
        "type": "cdr.completed",
        "subject": 'call/Zoë "1" 100%',
        "time": datetime.now(timezone.utc),
        "datacontenttype": "application/json",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "sampledrate": 5,
        **extensions,
    }
    return CloudEvent(attributes, {"text": "héllo €", "cost": 1.5})


def post(headers, body):
    request = urllib.request.Request(ingest, data=body, method="POST")
    for name, value in {**headers, "authorization": f"Bearer {token}"}.items():
        request.add_header(name, value)
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 202, answer.status


sent = []

binary = http.to_binary_event(event("http-binary"))
post(binary.headers, binary.body)
sent.append("python-http-binary")

structured = http.to_structured_event(event("http-structured"))
post(structured.headers, structured.body)
sent.append("python-http-structured")

# The SDK has no batches of its own: they are arrays of what it writes.
batch = [http.to_structured_event(event(f"http-batch-{n}")).body for n in range(2)]
post({"content-type": "application/cloudevents-batch+json"}, b"[" + b",".join(batch) + b"]")
sent += ["python-http-batch-0", "python-http-batch-1"]

if brokers:
    failed = []
    producer = Producer(
        {"bootstrap.servers": brokers, "acks": "all", "message.timeout.ms": 30000}
    )
    for mode, write in [
        ("kafka-binary", kafka.to_binary_event),
        ("kafka-structured", kafka.to_structured_event),
    ]:
        message = write(event(mode, tenant=tenant, partitionkey="call/1"))
        producer.produce(
            topic,
            value=message.value,
            key=message.key,
            headers=list(message.headers.items()),
            on_delivery=lambda error, _: error and failed.append(error),
        )
        sent.append(f"python-{mode}")
    assert producer.flush(30) == 0 and not failed, failed

print("\n".join(sent))
