// Judges the Grafana dashboard on standard input by the types of Grafana itself, oldest and newest: the dashboard, each panel,
// and what its kind of panel and its data source have for options. What a type does not know is as wrong as what it lacks.
// Prints what TypeScript says; the exit code says whether there is anything. Runs in the folder that has the packages.

import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const folder = process.cwd();
const { panels, ...rest } = JSON.parse(readFileSync(0, "utf8"));
const versions = ["grafana-schema-11", "@grafana/schema"];
const compiler = join(dirname(createRequire(join(folder, "package.json")).resolve("typescript/package.json")), "bin/tsc");

function types(version, part) {
  const home = [["dist", "types"], ["dist", "esm"]].map((words) => join(folder, "node_modules", version, ...words, "raw"));
  const place = join(home.find(existsSync), part, "x");
  return join(place, readdirSync(place).find((name) => name.endsWith("types.gen.d.ts")));
}

function program(version) {
  const lines = [
    `import type { Dashboard, Panel, RowPanel } from ${JSON.stringify(types(version, "dashboard"))};`,
    `import type { DataQuery } from "@grafana/schema";`,
    // JSON has the words of an enum, and of its numbers the numbers.
    "type Plain<T> = T extends string ? `${T}` : T extends (infer U)[] ? Plain<U>[] : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;",
    // The data source's own words are in no package of types.
    "type Question = DataQuery & { expr: string; legendFormat: string; range: boolean; instant: boolean; editorMode: 'code' };",
    // Of a data source that asks for annotations the types leave the rest to it.
    "type Asked = { list: (Plain<NonNullable<NonNullable<Dashboard['annotations']>['list']>[number]> & { expr?: string; titleFormat?: string; step?: string })[] };",
  ];
  const is = (type, value) => lines.push(`((it: ${type}) => it)(${JSON.stringify(value)});`);
  const { annotations, ...dashboard } = rest;
  is("Plain<Dashboard>", dashboard);
  is("Asked", annotations);
  const kinds = new Set(panels.map(({ type }) => type).filter((type) => type !== "row"));
  for (const kind of kinds) {
    const source = JSON.stringify(types(version, `composable/${kind}/panelcfg`));
    lines.push(`import type { Options as ${kind}Options } from ${source};`);
    const fields = readFileSync(JSON.parse(source), "utf8").includes("FieldConfig ");
    lines.push(fields ? `import type { FieldConfig as ${kind}Fields } from ${source};` : `type ${kind}Fields = {};`);
  }
  for (const panel of panels) {
    if (panel.type === "row") {
      is("Plain<RowPanel>", panel);
      continue;
    }
    const { options, targets, fieldConfig, ...frame } = panel;
    is("Plain<Panel>", { ...frame, fieldConfig: { ...fieldConfig, defaults: { ...fieldConfig.defaults, custom: {} } } });
    is(`Plain<${panel.type}Options>`, options);
    is(`Plain<${panel.type}Fields>`, fieldConfig.defaults.custom ?? {});
    for (const target of targets) is("Question", target);
  }
  return lines.join("\n");
}

let wrong = false;
for (const version of versions) {
  const work = mkdtempSync(join(folder, "dashboard-"));
  try {
    const home = join(folder, "node_modules", version, "dist");
    const index = [join(home, "types/index.d.ts"), join(home, "esm/index.d.mts"), join(home, "esm/index.d.ts")].find(existsSync);
    const compilerOptions = {
      noEmit: true, strict: true, skipLibCheck: true, module: "preserve", moduleResolution: "bundler", target: "es2022",
      allowImportingTsExtensions: true, types: [], paths: { "@grafana/schema": [index] },
    };
    writeFileSync(join(work, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["dashboard.ts"] }));
    writeFileSync(join(work, "dashboard.ts"), program(version));
    execFileSync(process.execPath, [compiler, "--project", work], { encoding: "utf8", stdio: "pipe" });
  } catch (error) {
    console.log(`${version}: ${error.stdout || error.message}`);
    wrong = true;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
process.exit(wrong ? 1 : 0);
