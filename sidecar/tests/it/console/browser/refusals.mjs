// Refused requests by cause. argv: JSON with `main`, the origin of the main listener, `key`, an API key, `markup`, and `state`: `empty` or
// `full`. In the full state one request was signed for https://old.example.com, and one by a stranger.
import assert from "node:assert/strict";

import { inspect, open, run, signIn } from "./browser.mjs";

const { main, key, markup, state } = JSON.parse(process.argv[2]);

await run(async (browser) => {
  const { page, check } = await open(browser, main);
  await signIn(page, main, key);
  await page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name: "Refusals", exact: true }).click();
  await page.getByRole("heading", { name: "Refusals", exact: true }).waitFor();
  await inspect(page, `refusals-${state}`);
  if (state === "empty") {
    await page.getByText("No refused request matches.").waitFor();
    check();
    return;
  }
  // The cause, the one change, and strangers apart from misconfiguration.
  const group = page.locator("article", { hasText: "was signed for https://old.example.com" });
  await group.getByText("Add https://old.example.com to").waitFor();
  await group.getByText("misconfiguration").waitFor();
  await page.locator("article").getByText("They are refused rightly.").waitFor();

  await group.getByRole("link", { name: "Explain" }).click();
  await page.getByText("Add https://old.example.com to").waitFor();
  await page.getByText("/twilio/inbound").first().waitFor();
  // The request id, which a client chose, is text.
  await page.locator(".facts").getByText(markup.slice(0, 20)).waitFor();
  assert.equal(await page.locator("main script, main img, main iframe").count(), 0);
  await page.getByText("Complete report").click();
  await page.locator("#report").getByText("https://old.example.com").first().waitFor();
  await inspect(page, "refusal");

  // The overview has the causes, too, each with its explanation in one click.
  await page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name: "Overview" }).click();
  const causes = page.getByRole("region", { name: "Refused webhooks by cause" });
  await causes.getByText("stranger").first().waitFor();
  await inspect(page, "overview-refusals");
  await causes.getByRole("link", { name: "origin", exact: true }).click();
  await page.getByText("The request was signed for https://old.example.com.").waitFor();

  await page.getByRole("link", { name: "All causes" }).click();
  await page.getByLabel("Kind").selectOption("stranger");
  await page.getByRole("button", { name: "Search" }).click();
  await page.getByText("They are refused rightly.").waitFor();
  assert.equal(await page.locator("article").count(), 1);
  check();
});
