#!/usr/bin/env python3
"""Packs the files of a release reproducibly: the same bytes on every machine.

    artifacts.py tar FILE --folder NAME PATH=AS..    a gzipped tar: names sorted, without an owner, all with one time
    artifacts.py oci FILE --module WASM --version V  an OCI image layout with plugin.wasm in its only layer, as Istio pulls it
    artifacts.py sbom FILE --package P --target T    CycloneDX of what cargo links into a package
    artifacts.py sums FOLDER                         SHA256SUMS of everything in it

The time of everything is SOURCE_DATE_EPOCH, in seconds since 1970.
"""

import argparse
import datetime
import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
import tarfile
import tomllib
import uuid

EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])
ROOT = pathlib.Path(__file__).resolve().parent.parent


def time():
    return datetime.datetime.fromtimestamp(EPOCH, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def archive(entries):
    """Returns a tar of (name, bytes, is executable), sorted by name."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content, executable in sorted(entries):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), EPOCH
            entry.mode = 0o755 if executable else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def zipped(content):
    return gzip.compress(content, compresslevel=9, mtime=0)


def tar(arguments):
    entries = []
    for given in arguments.paths:
        path, _, name = given.partition("=")
        path, name = pathlib.Path(path), pathlib.PurePosixPath(arguments.folder) / (name or path)
        if path.is_dir():
            # Links are packed as files: the chart's alerts are those of envoy/.
            for folder, _, files in os.walk(path, followlinks=True):
                for file in (pathlib.Path(folder) / file for file in files):
                    entries.append((str(name / file.relative_to(path).as_posix()), file))
        else:
            entries.append((str(name), path))
    content = [(name, file.read_bytes(), bool(file.stat().st_mode & 0o100)) for name, file in entries]
    arguments.file.write_bytes(zipped(archive(content)))


def oci(arguments):
    blobs = []

    def blob(kind, content):
        digest = hashlib.sha256(content).hexdigest()
        blobs.append((f"blobs/sha256/{digest}", content, False))
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    def written(value):
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    layer = archive([("plugin.wasm", arguments.module.read_bytes(), False)])
    described = {
        "org.opencontainers.image.created": time(),
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.title": "twilio-edge filter",
        "org.opencontainers.image.version": arguments.version,
    }
    config = blob("application/vnd.oci.image.config.v1+json", written({
        "architecture": "wasm",
        "config": {"Labels": described},
        "created": time(),
        "os": "wasip1",
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }))
    manifest = blob("application/vnd.oci.image.manifest.v1+json", written({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [blob("application/vnd.oci.image.layer.v1.tar+gzip", zipped(layer))],
        "annotations": described,
    }))
    manifest["annotations"] = {"org.opencontainers.image.ref.name": arguments.version}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]}
    layout = [("oci-layout", written({"imageLayoutVersion": "1.0.0"}), False), ("index.json", written(index), False)]
    arguments.file.write_bytes(archive(layout + blobs))


def sbom(arguments):
    """Returns the linked crates of cargo's dependency tree for that target, with the licences of their metadata."""
    cargo = ["setup/cargo.sh", "tree", "--locked", "--package", arguments.package, "--target", arguments.target]
    tree = subprocess.run(
        [*cargo, "--edges", "normal", "--prefix", "depth", "--no-dedupe", "--format", " {p}"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout
    metadata = json.loads(subprocess.run(
        ["setup/cargo.sh", "metadata", "--locked", "--format-version", "1"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout)
    known = {(package["name"], package["version"]): package for package in metadata["packages"]}
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(package["name"], package["version"]): package.get("checksum") for package in locked}

    needs, path = {}, []
    for line in tree.splitlines():
        depth, name, version = re.match(r"(\d+) (\S+) v(\S+)", line).groups()
        del path[int(depth):]
        path.append((name, version))
        needs.setdefault(path[-1], set())
        if len(path) > 1:
            needs[path[-2]].add(path[-1])

    def reference(package):
        return f"pkg:cargo/{package[0]}@{package[1]}"

    def component(package, kind):
        about = known[package]
        made = {
            "type": kind, "bom-ref": reference(package), "name": package[0], "version": package[1],
            "purl": reference(package),
            # Before cargo accepted SPDX expressions, a slash meant OR.
            "licenses": [{"expression": re.sub(r"\s*/\s*", " OR ", about["license"])}],
        }
        if about.get("repository"):
            made["externalReferences"] = [{"type": "vcs", "url": about["repository"]}]
        if checksums.get(package):
            made["hashes"] = [{"alg": "SHA-256", "content": checksums[package]}]
        return made

    root = next(iter(needs))
    kind = "library" if arguments.target.startswith("wasm") else "application"
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"timestamp": time(), "component": component(root, kind)},
        "components": [component(package, "library") for package in sorted(needs) if package != root],
        "dependencies": [
            {"ref": reference(package), "dependsOn": sorted(map(reference, needs[package]))} for package in sorted(needs)
        ],
    }
    named = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    arguments.file.write_text(json.dumps({**content, "serialNumber": f"urn:uuid:{named}"}, indent=1, sort_keys=True) + "\n")


def sums(arguments):
    files = sorted(file for file in arguments.file.iterdir() if file.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (arguments.file / "SHA256SUMS").write_text("".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(required=True)
    for do, options in [(tar, ["folder"]), (oci, ["module", "version"]), (sbom, ["package", "target"]), (sums, [])]:
        command = what.add_parser(do.__name__)
        command.set_defaults(do=do)
        command.add_argument("file", type=pathlib.Path)
        for option in options:
            command.add_argument(f"--{option}", required=True, type=pathlib.Path if option == "module" else str)
        if do is tar:
            command.add_argument("paths", nargs="+")
    arguments = parser.parse_args()
    arguments.do(arguments)


main()
