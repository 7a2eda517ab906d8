// Judges the Kubernetes resources that come as a JSON list on standard input: each against the schema its project
// publishes, and all of them against the types made from it, since a schema says nothing of a field that does not exist
// and a cluster would drop it silently. One line for each problem; the exit code says whether there is one. Runs in the
// folder that has the packages: `node --input-type=module --eval "$(cat check.mjs)"`.

import { execFileSync } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const folder = process.cwd();
const packages = {
  "gateway.envoyproxy.io": "@kubernetes-models/envoy-gateway",
  "gateway.networking.k8s.io": "@kubernetes-models/gateway-api",
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
  "networking.istio.io": "@kubernetes-models/istio",
  "security.istio.io": "@kubernetes-models/istio",
};

function home({ apiVersion, kind }) {
  const [group, version] = apiVersion.includes("/") ? apiVersion.split("/") : ["", apiVersion];
  const place = [packages[group] ?? "kubernetes-models", group, version, kind].filter(Boolean);
  return place.join("/");
}

const resources = JSON.parse(readFileSync(0, "utf8"));
const problems = [];
const typed = [];
for (const resource of resources) {
  const name = `${resource.kind} ${resource.metadata?.name}`;
  try {
    const { [resource.kind]: Model } = await import(home(resource)).catch(() => ({}));
    if (!Model) throw new Error(`no known schema of ${resource.apiVersion} ${resource.kind}`);
    new Model(resource).validate();
    const { apiVersion, kind, ...rest } = resource;
    typed.push(`import { ${kind} as R${typed.length} } from "${home(resource)}";`);
    typed.push(`new R${typed.length - 1}(${JSON.stringify(rest)}); // ${name}`);
  } catch (error) {
    problems.push(`${name}: ${error.message}`);
  }
}

const program = join(folder, `resources-${process.pid}.ts`);
try {
  writeFileSync(program, typed.join("\n"));
  const compiler = join(dirname(createRequire(join(folder, "package.json")).resolve("typescript/package.json")), "bin/tsc");
  const options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"];
  execFileSync(process.execPath, [compiler, ...options, program], { encoding: "utf8", stdio: "pipe" });
} catch (error) {
  problems.push(error.stdout || error.message);
} finally {
  rmSync(program, { force: true });
}
for (const problem of problems) console.log(problem);
process.exit(problems.length === 0 ? 0 : 1);
