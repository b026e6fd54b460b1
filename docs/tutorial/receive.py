# ruff: noqa: F401 (the import is what makes the plugin known)
import slixmpp

import slixmpp_bt


class EchoFileBot(slixmpp.ClientXMPP):
    def __init__(self, jid, password, friends, **settings):
        super().__init__(jid, password)
        self.register_plugin("xep_bt", {"download_dir": "inbox", "auto_accept": friends, **settings})
        self.add_event_handler("session_start", self.start)

    async def start(self, event):
        self.send_presence()
        await self.get_roster()
