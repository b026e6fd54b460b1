"""Two peers and an XMPP server on networks that are not kind to them; all of it made and removed by the tests.

::

    namespaces  one network, gone with the process that holds it
    internet    hosts, lines, home routers, firewalls, distance
    server      Prosody in the middle
    peers       tests/peer.py on a host

They need root, ``/dev/net/tun``, iproute2, iptables, procps and Prosody; without them they are skipped in plain words
or, with SLIXMPP_BT_REQUIRE_SERVERS=1, fail.
"""
