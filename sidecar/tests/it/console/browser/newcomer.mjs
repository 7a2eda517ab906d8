// A newcomer opens the link that `make run` prints. argv: the link. Without a word of documentation the newcomer writes as the customer,
// answers as the business, sees the answer read, sends STOP, is refused, and sends START.
import assert from "node:assert/strict";

import { inspect, open, run } from "./browser.mjs";

const link = process.argv[2];
const { origin } = new URL(link);

await run(async (browser) => {
  const { page, check } = await open(browser, origin);
  await page.goto(link);
  assert.equal(await page.locator("h1").innerText(), "Phone");
  assert.ok(!page.url().includes("token"), page.url());
  await inspect(page, "phone-empty");

  await page.getByLabel("Message of the customer").fill("Where is my order?");
  await page.locator("section", { has: page.locator("#phone-title") }).getByRole("button", { name: "Send", exact: true }).click();
  await page.getByText("The webhook reached your application.").waitFor();
  await page.locator("#phone").getByText("Where is my order?").waitFor();
  await page.getByText("window open").waitFor();
  await page.locator("#records").getByText("received").first().waitFor();

  // Twilio repeats the webhook, and signs one for another URL.
  await page.getByText("What if ...").click();
  await page.getByRole("button", { name: "Twilio sends the last message again" }).click();
  await page.getByText("Your application did not receive the message again.").waitFor();
  await page.getByText("What if ...").click();
  await page.getByRole("button", { name: "the signature is for another URL" }).click();
  await page.getByRole("alert").getByText("HTTP 403").waitFor();
  await inspect(page, "phone-forged");
  // One click explains the refusal. The filter reports it within a few seconds.
  await page.getByRole("link", { name: "Explain the refusal" }).click();
  const cause = page.locator("article", { hasText: "1 request at" });
  await cause.getByText("was signed for https://old.example.com").waitFor();
  await cause.getByText("Add https://old.example.com to").waitFor();
  await page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name: "Phone" }).click();

  const answer = async (text) => {
    await page.getByLabel("Answer of the business").fill(text);
    await page.locator("section", { has: page.locator("#business-title") }).getByRole("button", { name: "Send", exact: true }).click();
  };
  await answer("It is on its way.");
  await page.getByText("The sidecar sent the answer.").waitFor();
  // The demo's application answers by itself, too.
  await page.locator("#phone li", { hasText: "It is on its way." }).getByText("business, read").waitFor();
  await page.locator("#records").getByText("read", { exact: true }).first().waitFor();
  await inspect(page, "phone-full");

  await page.getByRole("button", { name: "STOP" }).click();
  await page.locator("#business").getByText("The customer opted out").waitFor();
  await answer("Was it all right?");
  await page.getByRole("alert").getByText("suppressed").first().waitFor();
  await page.getByRole("alert").getByText("Must act").waitFor();
  await inspect(page, "phone-refused");

  // The customer comes back.
  await page.getByRole("button", { name: "START" }).click();
  await page.locator("#business").getByText("The customer has not opted out.").waitFor();

  // The link works once; the browser stays signed in.
  await page.goto(link);
  assert.equal(await page.locator("h1").innerText(), "Phone");
  const other = await open(browser, origin);
  await other.page.goto(link);
  await other.page.getByText("The link was already used").waitFor();
  other.check();
  check();
});
