"""Helm, as a library: what a chart makes of values. Standard input: a JSON list of requests; standard output: as many answers.

    {"chart": folder, "name": release, "namespace": .., "values": {..}, "versions": ["1.30.0", ..]}
    {"problem": ".."}                                  what Helm's schema, templates or lint refuse
    {"files": {template: text}, "invalid": [".."]}     what it renders, and what Kubernetes' schemas of these versions say"""

import json
import sys

import helm_python as helm
import kubernetes_validate
import yaml

# check.mjs checks resources that are not Kubernetes' own.
OTHERS = ("monitoring.coreos.com/",)


def invalid(files, versions):
    for path, text in files.items():
        for resource in yaml.safe_load_all(text) if path.endswith(".yaml") else []:
            if not resource or resource["apiVersion"].startswith(OTHERS):
                continue
            for version in versions:
                try:
                    kubernetes_validate.validate(resource, version, strict=True)
                except Exception as error:  # any error of Helm
                    name = f"{resource['kind']} {resource['metadata']['name']}"
                    yield f"{name}, Kubernetes {version}: {error}"


def answer(request):
    values = request["values"]
    try:
        linted = helm.lint(request["chart"], values, strict=True)
        if not linted.get("passed", True) or linted.get("errors"):
            return {"problem": json.dumps(linted)}
        with helm.Chart.load(request["chart"]) as chart:
            chart.validate_schema(values)
            files = chart.render(values, name=request["name"], namespace=request["namespace"])
    except helm.HelmError as error:
        return {"problem": str(error)}
    return {"files": files, "invalid": list(invalid(files, request["versions"])), "lint": linted}


json.dump([answer(request) for request in json.load(sys.stdin)], sys.stdout)
