"""A mail server for tests, made of aiosmtpd: writes each mail that it takes as a line of JSON.

mail_server.py MODE OUT PORT_FILE [CERTIFICATE KEY]    MODE: plain, starttls (with a login), tls
"""

import asyncio
import json
import os
import socket
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

MODE, OUT, PORT_FILE = sys.argv[1:4]


class Handler:
    async def handle_DATA(self, server, session, envelope):
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": server.transport.get_extra_info("sslcontext") is not None,
            "login": bool(session.authenticated),
            "text": envelope.content.decode(),
        }
        with open(OUT, "a") as file:
            file.write(json.dumps(mail) + "\n")
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    good = LoginPassword(b"pgkeep", b"opensesame")
    return AuthResult(success=data == good, handled=False)


def protocol():
    if MODE != "starttls":
        return SMTP(Handler(), hostname="localhost")
    return SMTP(
        Handler(),
        hostname="localhost",
        tls_context=CONTEXT,
        require_starttls=True,
        authenticator=authenticate,
        auth_required=True,
    )


CONTEXT = None
if MODE != "plain":
    CONTEXT = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    CONTEXT.load_cert_chain(sys.argv[4], sys.argv[5])


async def main():
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    context = CONTEXT if MODE == "tls" else None
    server = await asyncio.get_running_loop().create_server(protocol, sock=bound, ssl=context)
    with open(PORT_FILE + ".new", "w") as file:
        file.write(str(bound.getsockname()[1]))
    os.rename(PORT_FILE + ".new", PORT_FILE)
    async with server:
        await server.serve_forever()


asyncio.run(main())
