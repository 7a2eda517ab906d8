"""Google's own client library, at the Pub/Sub that PUBSUB_EMULATOR_HOST names. `make TOPIC SUBSCRIPTION` creates both, with ordered
messages. `receive COUNT SUBSCRIPTION` prints and acknowledges that many messages, and fails if they do not arrive in a minute."""

import json
import sys
import time

from google.api_core import exceptions
from google.cloud import pubsub_v1

subscriber = pubsub_v1.SubscriberClient()


def make(topic, subscription):
    pubsub_v1.PublisherClient().create_topic(name=topic)
    request = {"name": subscription, "topic": topic, "enable_message_ordering": True}
    subscriber.create_subscription(request=request)


def receive(count, subscription):
    found, limit = [], time.monotonic() + 60
    while len(found) < int(count):
        if time.monotonic() > limit:
            sys.exit(f"{len(found)} of {count} messages arrived")
        try:
            pulled = subscriber.pull(subscription=subscription, max_messages=100, timeout=10)
        except exceptions.DeadlineExceeded:
            continue
        for received in pulled.received_messages:
            message = received.message
            found.append(
                {
                    "event": json.loads(message.data),
                    "key": message.ordering_key,
                    "attributes": dict(message.attributes),
                }
            )
        if pulled.received_messages:
            ids = [received.ack_id for received in pulled.received_messages]
            subscriber.acknowledge(subscription=subscription, ack_ids=ids)
    print(json.dumps(found))


{"make": make, "receive": receive}[sys.argv[1]](*sys.argv[2:])
