"""A mail server (aiosmtpd) that prints every mail as a line of JSON, until its standard input ends.

Arguments: PORT MODE (none, starttls or tls) CERTIFICATE KEY USER PASSWORD; `-` for none of the last four.
It refuses for good what goes to refused@…, and puts off what goes to later@… twice.
"""

import json
import ssl
import sys
import threading
from collections import Counter
from email import message_from_bytes, policy

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

port, mode, certificate, key, user, password = sys.argv[1:7]
output = threading.Lock()
put_off = Counter()


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("refused@"):
            return "550 5.1.1 nobody of this name here"
        if address.startswith("later@") and put_off[address] < 2:
            put_off[address] += 1
            return "450 4.2.0 greylisted, try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = message_from_bytes(envelope.content, policy=policy.default)
        line = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "headers": [[name.lower(), str(value)] for name, value in mail.items()],
            "text": mail.get_content(),
            "tls": session.ssl is not None or mode == "tls",
            "user": session.auth_data.login.decode() if session.auth_data else None,
        }
        with output:
            print(json.dumps(line), flush=True)
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    right = isinstance(data, LoginPassword) and (data.login.decode(), data.password.decode()) == (user, password)
    return AuthResult(success=right, handled=False, auth_data=data if right else None)


options = {}
if mode != "none":
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    if mode == "tls":
        options["ssl_context"] = context
    else:
        options.update(tls_context=context, require_starttls=True)
if user != "-":
    options.update(
        authenticator=authenticate, auth_required=True, auth_require_tls=mode == "starttls"
    )

controller = Controller(Handler(), hostname="127.0.0.1", port=int(port), **options)
controller.start()
print("ready", flush=True)
sys.stdin.read()
controller.stop()
