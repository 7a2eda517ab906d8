"""Mail server of the tests: prints each message that it accepted as one line of JSON. The name before the @ selects an answer."""

import json
import sys
import time

from aiosmtpd.controller import Controller


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        name = address.split("@")[0]
        if name == "missing":
            return "550 5.1.1 The mailbox does not exist"
        if name == "later":
            return "451 4.7.1 Try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        name = envelope.rcpt_tos[0].split("@")[0]
        if name == "large":
            return "552 5.3.4 The message is too large"
        text = envelope.content.decode()
        print(json.dumps({"from": envelope.mail_from, "to": envelope.rcpt_tos, "text": text}), flush=True)
        if name == "lost":
            server.transport.abort()
        return "250 OK"


controller = Controller(Handler(), hostname="127.0.0.1", port=int(sys.argv[1]))
controller.start()
print("ready", flush=True)
while True:
    time.sleep(60)
