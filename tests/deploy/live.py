"""What tests need that run the program: free ports, and patience."""

import socket
import time
import urllib.request

# For everything that is waited for; a busy machine is slow.
PATIENCE = 120


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def free_pair():
    """A free port whose next one is free, too: Kafka listens there to itself."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def eventually(what, look):
    """Waits until `look` returns something; its last complaint is told."""
    deadline = time.monotonic() + PATIENCE
    complaint = None
    while time.monotonic() < deadline:
        try:
            found = look()
            if found:
                return found
        except (OSError, AssertionError) as error:
            complaint = error
        time.sleep(0.3)
    raise AssertionError(f"not within {PATIENCE} s: {what}: {complaint}")
