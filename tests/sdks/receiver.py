"""Reads requests as a receiver in Python would, with the CloudEvents SDK.

Standard input: a JSON array of requests, each with headers and body. Prints the events, a line each.
"""

import json
import sys

from cloudevents.core.bindings.http import HTTPMessage, from_http_event

for request in json.load(sys.stdin):
    event = from_http_event(HTTPMessage(request["headers"], request["body"].encode()))
    print(
        json.dumps(
            {
                "id": event.get_id(),
                "source": event.get_source(),
                "type": event.get_type(),
                "subject": event.get_subject(),
                "time": event.get_time().timestamp(),
                "tenant": event.get_extension("tenant"),
                "data": event.get_data(),
            }
        )
    )
