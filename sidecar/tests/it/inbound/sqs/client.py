"""Queue of a local SQS (moto), by boto3. `make ENDPOINT NAME` creates a user with a key, its policy and the queue (a FIFO queue if
its name ends in `.fifo`), and prints them as JSON; the server then requires signatures. `receive ENDPOINT URL KEY SECRET` prints and deletes all messages."""

import json
import sys

import boto3

POLICY = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "sqs:*", "Resource": "*"}}


def client(service, key="none", secret="none"):
    return boto3.client(
        service,
        endpoint_url=sys.argv[2],
        region_name="eu-central-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
    )


def make(name):
    iam = client("iam")
    iam.create_user(UserName="edge")
    key = iam.create_access_key(UserName="edge")["AccessKey"]
    iam.put_user_policy(UserName="edge", PolicyName="sqs", PolicyDocument=json.dumps(POLICY))
    attributes = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
    queue = client("sqs").create_queue(QueueName=name, Attributes=attributes)
    return {"url": queue["QueueUrl"], "key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}


def receive(url, key, secret):
    sqs, found = client("sqs", key, secret), []
    while True:
        answer = sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        if not messages:
            return found
        for message in messages:
            found.append(
                {
                    "event": json.loads(message["Body"]),
                    "group": message["Attributes"].get("MessageGroupId"),
                    "deduplication": message["Attributes"].get("MessageDeduplicationId"),
                    "attributes": {k: v["StringValue"] for k, v in message["MessageAttributes"].items()},
                }
            )
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


print(json.dumps(make(sys.argv[3]) if sys.argv[1] == "make" else receive(*sys.argv[3:6])))
