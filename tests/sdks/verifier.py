"""Verifies requests as a receiver in Python would, with the library of Standard Webhooks.

Standard input: a JSON array of requests, each with secret (whsec_...), headers and body. Prints for
each "good", or why it is refused.
"""

import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError

for request in json.load(sys.stdin):
    try:
        Webhook(request["secret"]).verify(request["body"], request["headers"])
        print("good")
    except WebhookVerificationError as error:
        print(f"refused: {error}")
