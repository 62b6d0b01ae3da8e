import base64, hashlib, hmac, time

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"   # the webhook's signing secret
KEY = base64.b64decode(SECRET.removeprefix("whsec_"))

def is_from_ringback(headers, body: bytes) -> bool:
    """headers: with lower-case names; body: the bytes as they came, not parsed."""
    sent_at = headers.get("webhook-timestamp", "")
    if not sent_at.isascii() or not sent_at.isdigit() or abs(time.time() - int(sent_at)) > 300:
        return False
    signed = headers.get("webhook-id", "").encode() + b"." + sent_at.encode() + b"." + body
    expected = "v1," + base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    # While the secret is being changed there are several: one must be right.
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(expected.encode(), one.encode()) for one in given)
