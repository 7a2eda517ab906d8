"""All records of the topics of a Kafka cluster, as an application gets them that has librdkafka's own client. Takes the broker's
address and the topics, answers on stdout."""

import json
import sys

from confluent_kafka import Consumer, KafkaError, TopicPartition

broker, *topics = sys.argv[1:]
consumer = Consumer({
    "bootstrap.servers": broker,
    "group.id": "judge",
    "enable.auto.commit": False,
    "enable.partition.eof": True,
})
partitions = [
    TopicPartition(topic, partition, 0)
    for topic in topics
    for partition in consumer.list_topics(topic, 10).topics[topic].partitions
]
consumer.assign(partitions)
records, unread = [], len(partitions)
while unread:
    message = consumer.poll(10)
    if message is None:
        sys.exit("the broker says nothing any more")
    if message.error():
        if message.error().code() != KafkaError._PARTITION_EOF:
            sys.exit(str(message.error()))
        unread -= 1
        continue
    records.append({
        "topic": message.topic(),
        "partition": message.partition(),
        "key": message.key().decode(),
        "event": json.loads(message.value()),
        "headers": {name: value.decode() for name, value in message.headers()},
    })
consumer.close()
json.dump(records, sys.stdout)
