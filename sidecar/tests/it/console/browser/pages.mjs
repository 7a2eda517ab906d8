// Main task of each page, empty and full. argv: JSON with `main` and `admin`, the origins of the two listeners, `app` and `admin_key`,
// the API keys, and `state`: `empty` or `full`. In the full state a webhook of `number` contains markup.
import assert from "node:assert/strict";

import { inspect, open, run, signIn } from "./browser.mjs";

const config = JSON.parse(process.argv[2]);
const { admin, state } = config;

await run(async (browser) => {
  const { page, check } = await open(browser, admin);
  const title = () => page.locator("h1").innerText();
  const go = async (name) => {
    await page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name, exact: true }).click();
    assert.equal(await title(), name);
  };

  await page.goto(`${admin}/`);
  assert.equal(await title(), "Sign in");
  await inspect(page, "sign-in");
  await signIn(page, admin, "twilio_edge_0000000000000000_wrong");
  await page.getByRole("alert").getByText("The API key is not valid").waitFor();
  await signIn(page, admin, config.admin_key);
  assert.equal(await title(), "Overview");
  await page.getByText("Webhooks of the last hour").waitFor();
  await inspect(page, `overview-${state}`);

  await go("Webhooks");
  await inspect(page, `webhooks-${state}`);
  if (state === "empty") {
    await page.getByText("No webhook matches.").waitFor();
  } else {
    await webhooks(page);
  }

  await go("Messages");
  await inspect(page, `messages-${state}`);
  if (state === "empty") {
    await page.getByText("No message matches.").waitFor();
  } else {
    await messages(page);
  }
  check();
});

async function webhooks(page) {
  // The markup of the sender is text.
  await page.getByLabel("Number").fill(config.number);
  await page.getByRole("button", { name: "Search" }).click();
  const row = page.locator("tbody tr").first();
  await row.getByRole("link").click();
  await page.getByRole("heading", { name: "Parameters" }).waitFor();
  await page.locator("td", { hasText: config.markup }).first().waitFor();
  assert.equal(await page.locator("main script, main img, main iframe").count(), 0);
  assert.match(await page.locator("#curl").innerText(), /x-twilio-edge-message-sid: SM/);
  const headers = page.getByRole("region", { name: "Headers for your application" });
  await headers.getByRole("row", { name: `x-twilio-edge-from ${config.number}` }).waitFor();
  await inspect(page, "webhook");

  // A search that matches nothing, and one that the API refuses.
  await page.goto(`${config.admin}/console/webhooks?number=%2B19999999999`);
  await page.getByText("No webhook matches.").waitFor();
  await page.goto(`${config.admin}/console/webhooks?since=yesterday`);
  await page.getByRole("alert").getByText("since").first().waitFor();

  await live(page);

  // Keys: / leads to the search, j and Enter open an entry.
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.name), "number");
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Parameters" }).waitFor();
}

// The test sends webhooks all the time: the stream reports them, and a new one is shown without a reload.
async function live(page) {
  const opened = page.waitForResponse((response) => response.url().includes("/console/webhooks/stream"));
  await page.goto(`${config.admin}/console/webhooks`);
  assert.equal((await opened).headers()["content-type"], "text/event-stream");
  const latest = () => page.locator("tbody tr").first().getAttribute("data-row");
  const changed = (id) => page.waitForFunction((old) => document.querySelector("tbody tr").dataset.row !== old, id);
  await changed(await latest());
  const news = page.getByRole("status");
  await news.getByText(/^[1-9]\d* new entr/).waitFor();

  // A paused list stays as it is, and says how many entries it lacks.
  await page.getByRole("button", { name: "Pause" }).click();
  await news.getByText("Paused.").waitFor();
  await page.evaluate(() => new Promise(requestAnimationFrame));
  const paused = await latest();
  await news.getByText(/^Paused\. [1-9]\d* new entr/).waitFor();
  assert.equal(await latest(), paused);
  await inspect(page, "webhooks-paused");
  await page.getByRole("button", { name: "Pause" }).click();
  await changed(paused);
}

async function messages(page) {
  await page.getByRole("link", { name: "New message" }).click();
  await inspect(page, "new-message");
  await page.getByLabel("To", { exact: true }).fill("+14155550199");
  await page.getByLabel("From", { exact: true }).fill("+14155238886");
  await page.getByLabel("Text", { exact: true }).fill(config.markup);
  await page.getByRole("button", { name: "Send" }).click();
  await page.getByText("The message is accepted.").waitFor();
  await page.locator(".timeline").getByText("The API accepted the message.").waitFor();
  await page.locator(".facts").getByText("sent", { exact: true }).first().waitFor();
  await inspect(page, "message");

  // A refusal shows the title, the remedy and who must act, and the form keeps its fields.
  await page.getByRole("link", { name: "Send it as a new message" }).click();
  await page.getByLabel("To", { exact: true }).fill(config.suppressed);
  await page.getByLabel("From", { exact: true }).fill("+14155238886");
  await page.getByLabel("Text", { exact: true }).fill("hello");
  await page.getByRole("button", { name: "Send" }).click();
  const alert = page.getByRole("alert");
  await alert.getByText("suppressed").first().waitFor();
  assert.equal(await page.getByLabel("To", { exact: true }).inputValue(), config.suppressed);
  await inspect(page, "refused-message");

  // A scheduled message is canceled.
  await page.goto(`${config.admin}/console/messages/${config.scheduled}`);
  await page.getByRole("button", { name: "Cancel the message" }).click();
  await page.getByText("The message is canceled.").waitFor();
}
