-- Prosody for the tests: one host on loopback. prosody.py replaces the names between at signs.
pidfile = "@DIR@/prosody.pid"
data_path = "@DIR@/data"
log = { info = "*console" }

interfaces = { "@ADDRESS@" }
c2s_ports = { @C2S_PORT@ }
c2s_direct_tls_ports = {}
component_interfaces = { "@ADDRESS@" }
component_ports = { @COMPONENT_PORT@ }
http_interfaces = { "@ADDRESS@" }
http_ports = { @HTTP_PORT@ }
https_ports = {}
proxy65_interfaces = { "@ADDRESS@" }
proxy65_ports = { @PROXY_PORT@ }
s2s_interfaces = { "@ADDRESS@" }
s2s_ports = { @S2S_PORT@ }
s2s_direct_tls_ports = {}
s2s_secure_auth = false

certificates = "@DIR@"
ssl = { certificate = "@DIR@/server.pem"; key = "@DIR@/server.pem" }
authentication = "internal_hashed"
storage = "internal"
c2s_require_encryption = true
allow_registration = true

modules_disabled = { @DISABLED@ }
plugin_paths = { "@DIR@/modules" }
modules_enabled = {
    "roster"; "saslauth"; "tls"; "disco";
    "blocklist"; "bookmarks"; "carbons"; "pep"; "private"; "smacks"; "vcard4"; "vcard_legacy";
    "csi_simple"; "mam"; "ping"; "register"; "time"; "uptime"; "version"; @MODULES@
}
@LIMITS@
@PEP@

VirtualHost "@DOMAIN@"

Component "conference.@DOMAIN@" "muc"
    modules_enabled = { "muc_mam" }
    muc_room_locking = false

Component "pubsub.@DOMAIN@" "pubsub"

Component "proxy.@DOMAIN@" "proxy65"
    proxy65_address = "@ADDRESS@"
    proxy65_acl = { "@DOMAIN@", "bot.@DOMAIN@", "gateway.@DOMAIN@", "@NEIGHBOUR@" }

Component "upload.@DOMAIN@" "http_file_share"
    http_host = "@ADDRESS@"
    http_external_url = "http://@ADDRESS@:@HTTP_PORT@"

Component "bot.@DOMAIN@"
    component_secret = "@SECRET@"

Component "gateway.@DOMAIN@"
    component_secret = "@SECRET@"
