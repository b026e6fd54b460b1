"""A client's way into the loopback server, byte by byte and with slixmpp."""

from __future__ import annotations

import ssl

import pytest
import slixmpp

from slixmpp_bt.testing import LoopbackServer

from .testing_tools import bind, plain, raw, settle

NOT_AUTHORIZED = r"<failure[^>]*><not-authorized/></failure>"


def server(**options: object) -> LoopbackServer:
    return LoopbackServer(users={"alice": "secret", "bob": "secret"}, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"])
async def test_connect_each_mechanism_gets_in(tls: bool, mechanism: str) -> None:
    async with server(tls=tls) as loopback:
        alice = loopback.client("alice/phone", sasl_mech=mechanism)
        alice.plugin["feature_mechanisms"].unencrypted_scram = True
        await loopback.connect(alice)
        assert alice.boundjid.full == "alice@localhost/phone"
        assert alice.transport is not None
        assert (alice.transport.get_extra_info("cipher") is not None) == tls


async def test_connect_other_domain_has_a_certificate_for_it() -> None:
    async with LoopbackServer(domain="xmpp.test", users={"alice": "secret"}) as loopback:
        alice = loopback.client("alice")
        await loopback.connect(alice)
        assert alice.boundjid.bare == "alice@xmpp.test"


async def test_tls_1_2_is_accepted() -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with server() as loopback, raw(loopback) as client:
        client.open()
        await client.expect("<starttls[^>]*><required/></starttls></features>")
        client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        await client.expect("<proceed[^>]*/>")
        await client.writer.start_tls(context, server_hostname="localhost")
        assert client.writer.get_extra_info("ssl_object").version() == "TLSv1.2"


async def test_starttls_anything_before_it_ends_the_stream() -> None:
    async with server() as loopback, raw(loopback) as client:
        client.open()
        client.send(plain("alice", "secret"))
        assert "policy-violation" in await client.rest()


async def test_starttls_stanza_smuggled_in_front_of_the_handshake_is_not_obeyed() -> None:
    async with server() as loopback, raw(loopback) as client:
        client.open()
        await client.expect("</features>")
        client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>" + plain("alice", "secret"))
        assert "<success" not in await client.rest()


async def test_starttls_handshake_that_is_none_closes_the_connection() -> None:
    async with server() as loopback:
        async with raw(loopback) as client:
            client.open()
            await client.expect("</features>")
            client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            await client.expect("<proceed[^>]*/>")
            client.send("<stream:stream>" * 10)
            await client.rest()
        await loopback.connect(loopback.client("alice"))


async def test_stop_in_the_middle_of_a_handshake_ends() -> None:
    async with server() as loopback, raw(loopback) as client:
        client.open()
        await client.expect("</features>")
        client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        await client.expect("<proceed[^>]*/>")
        await loopback.stop()
        assert await client.rest() == ""


@pytest.mark.parametrize(
    ("element", "answer"),
    [
        (plain("alice", "wrong"), NOT_AUTHORIZED),
        (plain("nobody", "secret"), NOT_AUTHORIZED),
        (plain("a@b@c", "secret"), NOT_AUTHORIZED),
        (plain("alice", "secret").replace("PLAIN", "MAGIC"), "<invalid-mechanism/>"),
        (plain("alice", "secret").replace("</auth>", "!</auth>"), "<incorrect-encoding/>"),
        ("<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>", "<aborted/>"),
        ("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>", "<malformed-request/>"),
    ],
)
async def test_auth_failed_attempt_leaves_another(element: str, answer: str) -> None:
    async with server(tls=False) as loopback, raw(loopback) as client:
        client.open()
        await client.expect("</features>")
        client.send(element)
        await client.expect(answer)
        client.send(plain("alice", "secret"))
        await client.expect("<success")


async def test_auth_too_many_attempts_end_the_stream() -> None:
    async with server(tls=False) as loopback, raw(loopback) as client:
        client.open()
        client.send(plain("alice", "wrong") * 6)
        text = await client.rest()
        assert text.count("<failure") == 5
        assert "policy-violation" in text


async def test_auth_stanza_before_it_ends_the_stream() -> None:
    async with server(tls=False) as loopback, raw(loopback) as client:
        client.open()
        client.send("<message to='bob@localhost'><body>hi</body></message>")
        assert "<not-authorized" in await client.rest()


async def test_auth_plain_without_initial_response_is_asked_for_it() -> None:
    async with server(tls=False) as loopback, raw(loopback) as client:
        client.open()
        await client.expect("</features>")
        attempt = plain("alice", "secret")
        start, response = attempt.split(">", 1)
        client.send(start + "/>")
        await client.expect("<challenge[^>]*/>")
        client.send("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>" + response.replace("auth", "response"))
        await client.expect("<success")


async def test_auth_pipelined_stream_ends_the_stream() -> None:
    async with server(tls=False) as loopback, raw(loopback) as client:
        client.open()
        client.send(plain("alice", "secret") + "<iq/>")
        assert "policy-violation" in await client.rest()


async def test_bind_anything_before_it_ends_the_stream() -> None:
    async with server(tls=False) as loopback, raw(loopback) as client:
        client.open()
        client.send(plain("alice", "secret"))
        await client.expect("<success[^>]*/>")
        client.open()
        client.send("<presence/>")
        assert "<not-authorized" in await client.rest()


async def test_bind_without_resource_makes_one_up() -> None:
    async with server() as loopback:
        devices = [loopback.client("alice") for _ in range(2)]
        for device in devices:
            await loopback.connect(device)
        assert len({device.boundjid.resource for device in devices} - {""}) == 2


async def test_bind_impossible_resource_ends_the_stream() -> None:
    async with server(tls=False) as loopback, raw(loopback) as client:
        client.open()
        client.send(plain("alice", "secret"))
        await client.expect("<success[^>]*/>")
        client.open()
        client.send(bind("&#x340;" * 2_000))
        assert "bad-format" in await client.rest()


async def test_bind_resource_in_use_replaces_the_older() -> None:
    async with server(tls=False) as loopback, raw(loopback) as older:
        await older.log_in("alice", resource="phone")
        alice, bob = loopback.client("alice/phone"), loopback.client("bob/pc")
        for client in (alice, bob):
            client.register_plugin("xep_0199")
            await loopback.connect(client)
        assert "<conflict" in await older.rest()
        await settle(bob, alice)


async def test_header_for_another_domain_ends_the_stream() -> None:
    async with server() as loopback, raw(loopback) as client:
        client.open(to="elsewhere.test")
        assert "<host-unknown" in await client.rest()


async def test_header_of_another_namespace_ends_the_stream() -> None:
    async with server() as loopback, raw(loopback) as client:
        client.send("<stream xmlns='jabber:client' to='localhost'>")
        assert "<invalid-namespace" in await client.rest()


@pytest.mark.parametrize("to", ["bob@localhost", "bob@localhost/pc"])
async def test_stanza_with_a_false_sender_ends_the_stream(to: str) -> None:
    async with server(tls=False) as loopback, raw(loopback) as client:
        await client.log_in("alice")
        client.send(f"<message from='bob@localhost' to='{to}'><body>I am Bob</body></message>")
        assert "<invalid-from" in await client.rest()


async def test_stanza_with_own_sender_is_stamped_in_full() -> None:
    async with server(tls=False) as loopback, raw(loopback) as client:
        await client.log_in("alice")
        client.send("<message from='alice@localhost' to='alice@localhost/raw' id='1'/>")
        assert "from='alice@localhost/raw'" in (await client.expect("<message[^>]*>")).replace('"', "'")


async def test_unknown_stanza_ends_the_stream() -> None:
    async with server(tls=False) as loopback, raw(loopback) as client:
        await client.log_in("alice")
        client.send("<letter/>")
        assert "<unsupported-stanza-type" in await client.rest()


async def test_malformed_xml_ends_the_stream_and_nothing_else() -> None:
    async with server(tls=False) as loopback:
        alice, bob = loopback.client("alice/phone"), loopback.client("bob/pc")
        for client in (alice, bob):
            client.register_plugin("xep_0199")
            await loopback.connect(client)
        async with raw(loopback) as hostile:
            await hostile.log_in("alice", resource="hostile")
            hostile.send("<message></presence>")
            assert "<not-well-formed" in await hostile.rest()
        await settle(alice, bob)


@pytest.mark.parametrize("address", ["@", "a@b@c", "/", "a@localhost/" + "x" * 2_000, "-.-"])
async def test_malformed_address_is_answered_with_an_error(address: str) -> None:
    async with server(tls=False) as loopback, raw(loopback) as client:
        await client.log_in("alice")
        client.send(f"<iq type='get' id='1' to='{address}'><ping xmlns='urn:xmpp:ping'/></iq>")
        assert "<jid-malformed" in await client.expect("</iq>")


async def test_limits_announced_are_learnt_by_slixmpp() -> None:
    async with server(max_stanza=5_000, announce_limits=True) as told, server(max_stanza=5_000) as untold:
        for loopback, expected in ((told, 5_000), (untold, None)):
            alice = loopback.client("alice")
            await loopback.connect(alice)
            assert alice.limits.max_bytes == expected


async def test_stanza_above_the_limit_ends_the_stream() -> None:
    async with server(tls=False, max_stanza=1_000) as loopback, raw(loopback) as client:
        await client.log_in("alice")
        frame = "<message to='alice@localhost/raw' id='{}'><body>{}</body></message>"
        fits = frame.format(1, "x" * (1_000 - len(frame.format(1, ""))))
        client.send(fits)
        await client.expect("</message>")
        client.send(fits.replace("x", "xx", 1))
        assert "<policy-violation" in await client.rest()


async def test_stream_closed_by_the_client_is_closed_by_the_server() -> None:
    async with server(tls=False) as loopback, raw(loopback) as client:
        await client.log_in("alice")
        client.send("</stream:stream>")
        assert (await client.rest()).endswith("</stream:stream>")
        with pytest.raises(LookupError):
            loopback.kick("alice/raw")


async def test_connect_wrong_password_raises() -> None:
    async with server() as loopback:
        alice = loopback.configure(slixmpp.ClientXMPP("alice@localhost", "wrong"))
        with pytest.raises(ConnectionError, match="alice@localhost"):
            await loopback.connect(alice)
