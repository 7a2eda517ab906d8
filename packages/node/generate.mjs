// Generates src/v1.ts and src/operations.ts from the OpenAPI document of argv[2].
import { readFile, writeFile } from "node:fs/promises";
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
