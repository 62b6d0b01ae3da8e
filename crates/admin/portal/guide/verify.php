<?php
const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'; // the webhook's signing secret

// $headers: with lower-case names (array_change_key_case(getallheaders())).
// $body: the bytes as they came, not parsed (file_get_contents('php://input')).
function is_from_ringback(array $headers, string $body): bool
{
    $sent_at = $headers['webhook-timestamp'] ?? '';
    if (!ctype_digit($sent_at) || abs(time() - (int) $sent_at) > 300) {
        return false;
    }
    $key = base64_decode(substr(SECRET, strlen('whsec_')));
    $signed = ($headers['webhook-id'] ?? '') . '.' . $sent_at . '.' . $body;
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', $signed, $key, true));
    // While the secret is being changed there are several: one must be right.
    foreach (explode(' ', $headers['webhook-signature'] ?? '') as $given) {
        if (hash_equals($expected, $given)) {
            return true;
        }
    }
    return false;
}
