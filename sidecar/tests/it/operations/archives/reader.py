"""Reads an archive with nothing of ours: boto3 or plain HTTP for the objects, Python's gzip and json for what is in them, and RFC 1952
for the index. Prints one JSON object for each object of the archive: its key, its lines, and the marks of its index.

reader.py make s3|gs ENDPOINT BUCKET
reader.py read s3|gs ENDPOINT BUCKET
reader.py read folder PATH
"""

import gzip
import json
import pathlib
import sys
import urllib.parse
import urllib.request


def s3(endpoint):
    import boto3
    from botocore.config import Config

    config = Config(retries={"max_attempts": 2}, connect_timeout=2, read_timeout=10)
    return boto3.client("s3", endpoint_url=endpoint, region_name="eu-central-1", config=config,
                        aws_access_key_id="reader", aws_secret_access_key="reader")


def http(method, url, body=None):
    request = urllib.request.Request(url, method=method, data=body, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()


def objects(kind, place):
    if kind == "folder":
        root = pathlib.Path(place[0])
        for path in sorted(root.rglob("*")):
            if path.is_file():
                yield str(path.relative_to(root)), path.read_bytes()
    elif kind == "s3":
        client, bucket = s3(place[0]), place[1]
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for found in page.get("Contents", []):
                yield found["Key"], client.get_object(Bucket=bucket, Key=found["Key"])["Body"].read()
    else:
        base = f"{place[0]}/storage/v1/b/{place[1]}/o"
        for found in json.loads(http("GET", base)).get("items", []):
            name = urllib.parse.quote(found["name"], safe="")
            yield found["name"], http("GET", f"{base}/{name}?alt=media")


def marks(data):
    """RFC 1952, 2.3: the subfields of the `extra` field of the first member."""
    assert data[:3] == b"\x1f\x8b\x08" and data[3] & 4, "no extra field"
    extra = data[12:12 + int.from_bytes(data[10:12], "little")]
    found = []
    while extra:
        name, length = extra[:2], int.from_bytes(extra[2:4], "little")
        field, extra = extra[4:4 + length], extra[4 + length:]
        if name == b"TE":
            found += [field[at:at + 8].hex() for at in range(0, length, 8)]
    return found


def main(action, kind, *place):
    if action == "make" and kind == "s3":
        s3(place[0]).create_bucket(Bucket=place[1], CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    elif action == "make":
        http("POST", f"{place[0]}/storage/v1/b?project=edge", json.dumps({"name": place[1]}).encode())
    else:
        for key, data in objects(kind, place):
            lines = [json.loads(line) for line in gzip.decompress(data).decode().splitlines()]
            print(json.dumps({"key": key, "lines": lines, "marks": marks(data)}))


main(*sys.argv[1:])
