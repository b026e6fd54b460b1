import slixmpp

import slixmpp_bt


class EchoFileBot(slixmpp.ClientXMPP):
    def __init__(self, jid, password, friends, **settings):
        super().__init__(jid, password)
        others = [friend for friend in friends if friend != self.requested_jid.bare]
        self.register_plugin("xep_bt", {"download_dir": "inbox", "auto_accept": others, **settings})
        self.add_event_handler("session_start", self.start)
        self.add_event_handler("bt_transfer_end", self.echo)

    async def start(self, event):
        self.send_presence()
        await self.get_roster()

    async def echo(self, transfer):
        if not transfer.complete:
            print(f"{transfer.name} failed: {transfer.error}")
        elif transfer.incoming:
            print(f"{transfer.path.name} arrived from {transfer.peer.bare}")
            await slixmpp_bt.get_plugin(self).send_file(transfer.peer, transfer.path)
