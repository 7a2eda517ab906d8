"""Sends e-mails to the simulator with SendGrid's own library. Arguments: base URL, key, sender."""

import sys

from python_http_client.exceptions import BadRequestsError, UnauthorizedError
from sendgrid import SendGridAPIClient
from sendgrid.helpers.mail import CustomArg, From, Mail, ReplyTo, To

base, key, sender = sys.argv[1:]


def send(mail, key=key):
    client = SendGridAPIClient(key, host=base)
    return client.send(mail)


plain = Mail(From(sender, "Shop"), "ava@example.com", "Your order", "It is on its way.", "<p>It is on its way.")
plain.reply_to = ReplyTo("help@example.com", "Help")
plain.custom_arg = CustomArg("order", "7")
answer = send(plain)
assert (answer.status_code, answer.body) == (202, b""), answer.body
assert answer.headers["X-Message-Id"]

many = Mail(sender, [To("ava@example.com"), To("bob@example.com")], is_multiple=True)
many.template_id = "d-" + "0" * 32
many.dynamic_template_data = {"name": "Ava"}
assert send(many).status_code == 202

for mail, key, error, field in (
    (plain, "wrong", UnauthorizedError, None),
    (Mail(sender, "ava@localhost", "x", "x"), key, BadRequestsError, "personalizations.0.to.0.email"),
    (Mail(sender, "ava@example.com", "x"), key, BadRequestsError, "content"),
):
    try:
        send(mail, key)
    except error as refusal:
        assert refusal.to_dict["errors"][0]["field"] == field, refusal.to_dict
    else:
        raise AssertionError(f"{error.__name__} expected")
