// Generates src/v1.ts and src/operations.ts from the OpenAPI document of argv[2], and compiles src to dist: ES modules, CommonJS and
// declarations. It compiles one file after the other, without the types of Twilio's SDK, which takes a second instead of ten;
// `make lint` checks the types.
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import openapiTS, { astToString } from "openapi-typescript";
import ts from "typescript";

const source = process.argv[2];
const document = JSON.parse(await readFile(source, "utf8"));
const blob = ts.factory.createTypeReferenceNode("Blob");
const nodes = await openapiTS(pathToFileURL(source), {
  transform: (schema) => (schema.format === "binary" ? blob : undefined),
});
const header = "// Generated from docs/openapi.\n\n";
await writeFile("src/v1.ts", header + astToString(nodes));

const [keyed, binary] = [[], []];
for (const [path, methods] of Object.entries(document.paths)) {
  const { parameters = [], requestBody } = methods.post ?? {};
  if (parameters.some((one) => one.name === "Idempotency-Key")) keyed.push(path);
  for (const [type, { schema }] of Object.entries(requestBody?.content ?? {})) {
    if (schema.format === "binary") binary.push([path, type]);
  }
}
// As `problem_codes` of packages/openapi/v1.py.
const codes = document.components.schemas.Problem.properties.code.oneOf;
const descriptions = Object.fromEntries(codes.map((one) => [one.enum[0], one.description]));
await writeFile(
  "src/operations.ts",
  `${header}/** Paths of POST requests that accept an Idempotency-Key. */
export const KEYED: ReadonlySet<string> = new Set(${JSON.stringify(keyed)});
/** Content type of each path whose POST request has a body of bytes. */
export const BINARY: ReadonlyMap<string, string> = new Map(${JSON.stringify(binary)});
/** Status, actor, title and remedy of each code of a problem. */
export const DESCRIPTIONS: Readonly<Record<string, string>> = ${JSON.stringify(descriptions, null, 2)};
`,
);

const shared = { target: ts.ScriptTarget.ES2022, esModuleInterop: true, sourceMap: true, inlineSources: true, strict: true };
const files = await readdir("src");
for (const [folder, module] of [
  ["esm", ts.ModuleKind.ESNext],
  ["cjs", ts.ModuleKind.CommonJS],
]) {
  await mkdir(`dist/${folder}`, { recursive: true });
  for (const file of files) {
    // `export =` is a word of CommonJS.
    if (folder === "esm" && file === "sdk-callable.ts") continue;
    const text = await readFile(`src/${file}`, "utf8");
    const settings = { fileName: file, reportDiagnostics: true };
    const compiled = ts.transpileModule(text, { ...settings, compilerOptions: { ...shared, module } });
    const declaring = { target: shared.target, module, declaration: true, isolatedDeclarations: true };
    const declared = ts.transpileDeclaration(text, { ...settings, compilerOptions: declaring });
    const problems = [...(compiled.diagnostics ?? []), ...(declared.diagnostics ?? [])];
    if (problems.length > 0) {
      const host = { getCanonicalFileName: (name) => name, getCurrentDirectory: () => ".", getNewLine: () => "\n" };
      console.error(ts.formatDiagnostics(problems, host));
      process.exit(1);
    }
    const name = file.replace(/\.ts$/, "");
    await writeFile(`dist/${folder}/${name}.js`, compiled.outputText);
    await writeFile(`dist/${folder}/${name}.js.map`, compiled.sourceMapText ?? "");
    await writeFile(`dist/${folder}/${name}.d.ts`, declared.outputText);
  }
}
// The files of this folder are CommonJS, although the package is of type `module`.
await writeFile("dist/cjs/package.json", '{ "type": "commonjs" }\n');
