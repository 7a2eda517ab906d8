"""Pub/Sub in memory, on Google's published protobufs. The sink publishes by the REST API, whose JSON the protobufs define.
Google's client library creates topics and subscriptions and receives the messages, by gRPC.

Arguments: the port of the REST API, the port of gRPC, and a JSON object that may have `limit` (most bytes of a message), and, for a
REST API with TLS that requires credentials, `cert`, `key`, `public_key` (of the service account) and `publisher` (its name)."""

import json
import re
import ssl
import sys
import threading
import time
import uuid
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import grpc
from google.auth import exceptions, jwt
from google.protobuf import empty_pb2, json_format, timestamp_pb2
from google.pubsub_v1 import types

# Limits of https://cloud.google.com/pubsub/quotas#resource_limits, in bytes.
MESSAGE, ATTRIBUTES, ATTRIBUTE_NAME, ATTRIBUTE_VALUE, ORDERING_KEY = 10_000_000, 100, 256, 1024, 1024
SCOPES = {"https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/pubsub"}
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
}
PUBLISH = re.compile(r"/v1/(projects/[^/]+/topics/[^/]+):publish")
OPTIONS = json.loads(sys.argv[3])


class Refusal(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status, self.message = status, message


def require(condition, message):
    if not condition:
        raise Refusal("INVALID_ARGUMENT", message)


def check(message):
    require(message.data or message.attributes, "a message must have data or attributes")
    require(len(message.attributes) <= ATTRIBUTES, "too many attributes")
    for name, value in message.attributes.items():
        require(0 < len(name.encode()) <= ATTRIBUTE_NAME, "invalid name of an attribute")
        require(not name.startswith("goog"), "reserved name of an attribute")
        require(len(value.encode()) <= ATTRIBUTE_VALUE, "an attribute is too long")
    require(len(message.ordering_key.encode()) <= ORDERING_KEY, "the ordering key is too long")
    size = types.PubsubMessage.pb(message).ByteSize()
    require(size <= OPTIONS.get("limit", MESSAGE), "the message is too large")


class Subscription:
    """Messages that wait, and those that a reader has and did not acknowledge."""

    def __init__(self, is_ordered):
        self.is_ordered, self.waiting, self.received = is_ordered, [], {}

    def take(self, most):
        """In an ordered subscription, the messages of a key wait until those before them are acknowledged."""
        held = {message.ordering_key for message in self.received.values() if self.is_ordered}
        taken, rest = [], []
        for message in self.waiting:
            is_free = not message.ordering_key or message.ordering_key not in held
            (taken if is_free and len(taken) < most else rest).append(message)
        self.waiting = rest
        received = []
        for message in taken:
            ack_id = uuid.uuid4().hex
            self.received[ack_id] = message
            received.append(types.ReceivedMessage(ack_id=ack_id, message=message))
        return received


class Broker:
    def __init__(self):
        self.changed = threading.Condition()
        self.topics, self.subscriptions, self.count = {}, {}, 0

    def create_topic(self, topic):
        with self.changed:
            if topic.name in self.topics:
                raise Refusal("ALREADY_EXISTS", "the topic exists")
            self.topics[topic.name] = []
        return topic

    def create_subscription(self, subscription):
        with self.changed:
            if subscription.topic not in self.topics:
                raise Refusal("NOT_FOUND", f"Resource not found (resource={subscription.topic}).")
            of = Subscription(subscription.enable_message_ordering)
            self.topics[subscription.topic].append(of)
            self.subscriptions[subscription.name] = of
        return subscription

    def publish(self, request):
        require(request.messages, "the request has no message")
        for message in request.messages:
            check(message)
        with self.changed:
            if request.topic not in self.topics:
                raise Refusal("NOT_FOUND", f"Resource not found (resource={request.topic}).")
            ids = []
            for message in request.messages:
                self.count += 1
                message.message_id = str(self.count)
                message.publish_time = timestamp_pb2.Timestamp(seconds=int(time.time()))
                ids.append(message.message_id)
                for subscription in self.topics[request.topic]:
                    subscription.waiting.append(message)
            self.changed.notify_all()
        return types.PublishResponse(message_ids=ids)

    def pull(self, request):
        with self.changed:
            if request.subscription not in self.subscriptions:
                raise Refusal("NOT_FOUND", f"Resource not found (resource={request.subscription}).")
            subscription = self.subscriptions[request.subscription]
            self.changed.wait_for(lambda: subscription.waiting, timeout=1)
            return types.PullResponse(received_messages=subscription.take(request.max_messages))

    def acknowledge(self, request):
        with self.changed:
            for ack_id in request.ack_ids:
                self.subscriptions[request.subscription].received.pop(ack_id, None)
        return empty_pb2.Empty()


BROKER = Broker()


def authenticate(header):
    """Verifies the token that a service account signed itself, with Google's own library."""
    if "public_key" not in OPTIONS:
        return
    try:
        token = (header or "").removeprefix("Bearer ")
        with open(OPTIONS["public_key"], "rb") as key:
            claims = jwt.decode(token, certs=key.read())
    except (ValueError, exceptions.GoogleAuthError) as error:
        message = "Request had invalid authentication credentials."
        raise Refusal("UNAUTHENTICATED", message) from error
    if claims.get("iss") != OPTIONS["publisher"] or not SCOPES & set(claims.get("scope", "").split()):
        raise Refusal("PERMISSION_DENIED", "User not authorized to perform this action.")


class Rest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            authenticate(self.headers["authorization"])
            answer = 200, json_format.MessageToJson(types.PublishResponse.pb(self.publish(body)))
        except Refusal as refusal:
            code = HTTP_STATUS[refusal.status]
            error = {"code": code, "message": refusal.message, "status": refusal.status}
            answer = code, json.dumps({"error": error})
        status, text = answer
        self.send_response(status)
        self.send_header("content-type", "application/json; charset=UTF-8")
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def publish(self, body):
        found = PUBLISH.fullmatch(unquote(self.path))
        if not found:
            raise Refusal("NOT_FOUND", "Method not found.")
        request = types.PublishRequest()
        try:
            # Refuses unknown fields and values of other types, as Google does.
            json_format.Parse(body, types.PublishRequest.pb(request))
        except json_format.ParseError as error:
            raise Refusal("INVALID_ARGUMENT", f"Invalid JSON payload received. {error}") from error
        request.topic = found[1]
        return BROKER.publish(request)

    def log_message(self, *_):
        pass


class RestServer(ThreadingHTTPServer):
    daemon_threads = True
    tls = None

    def finish_request(self, request, client_address):
        # The handshake is in the thread of the connection.
        if self.tls:
            request = self.tls.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, *_):
        pass


def method(act, request, serialize):
    def handle(message, context):
        try:
            return act(message)
        except Refusal as refusal:
            return context.abort(grpc.StatusCode[refusal.status], refusal.message)

    return grpc.unary_unary_rpc_method_handler(handle, request.deserialize, serialize)


def main():
    rest, rpc = int(sys.argv[1]), sys.argv[2]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    publisher = {
        "CreateTopic": method(BROKER.create_topic, types.Topic, types.Topic.serialize),
        "Publish": method(BROKER.publish, types.PublishRequest, types.PublishResponse.serialize),
    }
    serialize = empty_pb2.Empty.SerializeToString
    subscriber = {
        "CreateSubscription": method(BROKER.create_subscription, types.Subscription, types.Subscription.serialize),
        "Pull": method(BROKER.pull, types.PullRequest, types.PullResponse.serialize),
        "Acknowledge": method(BROKER.acknowledge, types.AcknowledgeRequest, serialize),
    }
    for name, methods in (("Publisher", publisher), ("Subscriber", subscriber)):
        handler = grpc.method_handlers_generic_handler(f"google.pubsub.v1.{name}", methods)
        server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{rpc}")
    server.start()
    http = RestServer(("127.0.0.1", rest), Rest)
    if "cert" in OPTIONS:
        http.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        http.tls.load_cert_chain(OPTIONS["cert"], OPTIONS["key"])
    http.serve_forever()


main()
