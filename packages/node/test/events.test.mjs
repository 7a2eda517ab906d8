// The types of events have exactly the fields of docs/event.schema.json.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import ts from "typescript";

const schema = JSON.parse(readFileSync(`${process.env["TWILIO_EDGE_ROOT"]}/docs/event.schema.json`, "utf8"));
const file = new URL("../node_modules/twilio-edge/dist/esm/events.d.ts", import.meta.url).pathname;
const program = ts.createProgram([file], { strict: true });
const checker = program.getTypeChecker();
const source = /** @type {ts.SourceFile} */ (program.getSourceFile(file));
const exported = checker.getExportsOfModule(/** @type {ts.Symbol} */ (checker.getSymbolAtLocation(source)));

/** @param {string} name */
const type = (name) => checker.getDeclaredTypeOfSymbol(/** @type {ts.Symbol} */ (exported.find((one) => one.name === name)));

/** Fields of a type, and those that are required. @param {ts.Type} of */
function fields(of) {
  const properties = of.getProperties();
  const required = properties.filter((one) => !(one.flags & ts.SymbolFlags.Optional));
  return [properties.map((one) => one.name).sort(), required.map((one) => one.name).sort()];
}

/** @param {{ properties: object, required?: string[] }} of */
const described = (of) => [Object.keys(of.properties).sort(), (of.required ?? []).toSorted()];

/** Words of `event_type`. @param {ts.Type} event */
function kinds(event) {
  const kind = checker.getTypeOfSymbol(/** @type {ts.Symbol} */ (event.getProperty("event_type")));
  return (kind.isUnion() ? kind.types : [kind]).map((one) => /** @type {ts.StringLiteralType} */ (one).value);
}

test("every type of event has one type", () => {
  const event = type("Event");
  assert.ok(event.isUnion());
  assert.deepEqual(event.types.flatMap(kinds).sort(), schema.properties.event_type.enum.toSorted());
});

test("data have the fields of the schema", () => {
  for (const name of ["message", "suppression", "consent", "window", "template", "delivery", "account"]) {
    const found = type(`${name[0]?.toUpperCase()}${name.slice(1)}`);
    assert.deepEqual(fields(found), described(schema.$defs[name]), name);
  }
});

test("webhooks have the fields of the schema", () => {
  const known = Object.keys(schema.properties).filter((name) => !["data", "recorded_at"].includes(name));
  const found = [...new Set(["InboundEvent", "StatusEvent"].flatMap((name) => fields(type(name))[0] ?? []))];
  assert.deepEqual(found.sort(), known.sort());
  const parts = { Media: "media", Contact: "contacts", Button: "button", ListItem: "list", Location: "location", Referral: "referral", RepliedTo: "replied_to" };
  for (const [name, property] of Object.entries(parts)) {
    const { items, ...one } = schema.properties[property];
    assert.deepEqual(fields(type(name)), described(items ?? one), name);
  }
});
