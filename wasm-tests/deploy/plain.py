"""Writes the plain manifests, which need no Helm: the chart rendered for the values beside each of them, and the namespace.

argv: the repository, and the output folder."""

import pathlib
import sys

import helm_python as helm
import yaml

REPOSITORY, TARGET = map(pathlib.Path, sys.argv[1:3])

# Resources that others refer to come first.
ORDER = ("config", "stores", "migrations", "deployment", "service", "availability", "network", "monitoring", "demo")

NAMESPACE = """\
apiVersion: v1
kind: Namespace
metadata:
  name: twilio-edge
  labels:
    # Every pod of the chart complies with it.
    pod-security.kubernetes.io/enforce: restricted
"""


def plain(values):
    with helm.Chart.load(REPOSITORY / "deploy/helm/twilio-edge") as chart:
        files = chart.render(yaml.safe_load(values.read_text()), name="twilio-edge", namespace="twilio-edge")
    rendered = {pathlib.Path(path).stem: text for path, text in files.items() if path.endswith(".yaml")}
    if left_out := set(rendered) - set(ORDER):
        sys.exit(f"no place for {left_out}")
    documents = [NAMESPACE] + [one for name in ORDER for one in rendered[name].split("\n---\n")]
    documents = ["\n".join(line.rstrip() for line in one.strip().splitlines()) for one in documents]
    head = f"# Rendered by `make manifests` from deploy/helm/twilio-edge and {values.name}; a test compares them.\n"
    return head + "\n---\n".join(one for one in documents if yaml.safe_load(one)) + "\n"


for values in sorted((REPOSITORY / "deploy/kubernetes").glob("*.values.yaml")):
    (TARGET / values.name.replace(".values", "")).write_text(plain(values))
