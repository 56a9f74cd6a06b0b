"""ports.py - TCP ports of 127.0.0.1 that no other test gets, though nobody listens on them yet, or for a while.

A port that the system gives away (bind to 0) is only safe while somebody is bound to it. Otherwise another test's server may get it, and
even a client may: who connects to a port of that range again and again is sooner or later connected to itself. So these are of
another range, and each is held by a name in the abstract namespace, which goes with the process.
"""

import random
import socket

FIRST = 20000
LAST = 32000  # Linux gives away 32768 and above
TRIES = 500

_held = []


def _given_away():
    """The ports that the system may give to anybody."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            first, last = map(int, file.read().split())
            return range(first, last + 1)
    except (OSError, ValueError):
        return range(32768, 61000)


def _is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


def _hold(port):
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        holder.bind("\0litejoin-test-port-%d" % port)
    except OSError:
        holder.close()
        return False
    _held.append(holder)
    return True


def reserve():
    """A port for this process, until it ends."""
    given_away = _given_away()
    choice = random.SystemRandom()
    for _ in range(TRIES):
        port = choice.randrange(FIRST, LAST)
        if port not in given_away and _hold(port) and _is_free(port):
            return port
    with socket.socket() as probe:  # a machine that gives away everything, or where all is taken
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
