// Main task of each page for contacts, templates and administrators, empty and full. argv: JSON with `admin`, the origin of the
// administrators' listener, `admin_key`, a key for all accounts, `account`, `number`, and `state`: `empty` or `full`. In the full state
// a webhook of `number` and a template contain `markup`, `reader` has consented to that template, and the sink `app` refuses every event.
import assert from "node:assert/strict";

import { inspect, open, run, signIn } from "./browser.mjs";

const config = JSON.parse(process.argv[2]);
const { admin, state, markup } = config;
const alert = (page) => page.getByRole("alert");
const row = (page, text) => page.locator("tbody tr", { hasText: text });

await run(async (browser) => {
  const { page, check } = await open(browser, admin);
  const go = async (name) => {
    await page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name, exact: true }).click();
    assert.equal(await page.locator("h1").innerText(), name);
  };

  await signIn(page, admin, config.admin_key);
  await page.getByRole("heading", { name: "Overview" }).waitFor();

  if (state === "full") {
    await page.getByText("deliveries wait for sink app").waitFor();
    await page.getByRole("link", { name: "4 dead letters" }).waitFor();
    await inspect(page, "overview-sinks");
  }

  // A list of one account asks for the account first.
  await page.goto(`${admin}/console/contacts/suppressions`);
  await page.getByRole("alert").getByText("Must act").waitFor();
  await page.locator("header").getByLabel("Account", { exact: true }).fill(config.account);
  await page.locator("header").getByRole("button", { name: "Show" }).click();
  await page.getByText("No suppression matches.").waitFor();

  const pages = { Contacts: contacts, Templates: templates, Notifications: notifications, Deliveries: deliveries, "Accounts and keys": accounts, Audit: audit, "Settings in effect": settings };
  for (const [name, task] of Object.entries(pages)) {
    await go(name);
    await inspect(page, `${name.toLowerCase().replaceAll(" ", "-")}-${state}`);
    await task(page);
    assert.equal(await page.locator("main script, main img, main iframe").count(), 0);
  }
  check();
});

async function contacts(page) {
  await page.getByLabel("Number").fill(config.number);
  await page.getByRole("button", { name: "Search" }).click();
  await page.getByRole("heading", { name: `Contact ${config.number}` }).waitFor();
  await inspect(page, `contact-${state}`);
  if (state === "empty") {
    await page.getByText("No message from or to this number is stored.").waitFor();
    await page.getByText("No consent is recorded.").waitFor();
    return;
  }
  const conversation = page.getByRole("list", { name: "Conversation" });
  assert.equal(await conversation.getByText(markup).count(), 4);

  await page.getByText("Record a consent or its withdrawal").click();
  await page.getByLabel("Source of the evidence").fill(markup);
  await page.getByLabel("Text that the contact was shown, and the reply").fill("Do you agree? Yes.");
  await page.getByRole("button", { name: "Record the consent" }).click();
  await page.getByText("The consent is recorded with its evidence.").waitFor();
  const consents = page.getByRole("region", { name: "Consents in effect" });
  await consents.getByText(markup).waitFor();
  await consents.getByText("granted").waitFor();

  // A refusal shows the field and who must act.
  const suppress = async (end) => {
    await page.getByLabel("Ends by itself (UTC), empty for never").fill(end);
    await page.getByRole("button", { name: "Suppress the contact" }).click();
  };
  await page.getByText("Suppress the contact").first().click();
  await suppress("yesterday");
  await alert(page).getByText("expires_at").first().waitFor();
  await alert(page).getByText("Must act").waitFor();
  await suppress("");
  await page.getByText("The contact is suppressed.").waitFor();
  await inspect(page, "contact-suppressed");
  await page.getByRole("region", { name: "Suppressions" }).getByRole("button", { name: "End" }).click();
  await page.getByText("The suppression has ended.").waitFor();
  await page.getByText("not suppressed").waitFor();

  await page.getByRole("link", { name: "Find a contact" }).click();
  await page.getByRole("link", { name: "Consents" }).click();
  await row(page, config.number).getByText(markup).waitFor();
  await inspect(page, "consents");
  await page.getByRole("link", { name: "Suppressions" }).click();
  await page.getByLabel("Ended ones, too").selectOption("true");
  await page.getByRole("button", { name: "Search" }).click();
  await row(page, config.number).getByText("ended").waitFor();
  await inspect(page, "suppressions");
}

async function templates(page) {
  if (state === "empty") {
    await page.getByText("No template matches.").waitFor();
    return;
  }
  await row(page, "order_update").first().getByRole("link").click();
  await page.getByRole("link", { name: "pt_BR" }).click();
  await page.getByLabel("Variable 1").fill("Ada <b>");
  await page.getByLabel("To", { exact: true }).fill(`whatsapp:${config.reader}`);
  await page.getByLabel("From", { exact: true }).fill(`whatsapp:${config.own}`);
  await page.getByRole("button", { name: "Show the preview" }).click();
  await page.locator("#preview", { hasText: "Hello Ada <b>, " }).waitFor();
  assert.ok((await page.locator("#preview").innerText()).includes(markup));
  await inspect(page, "template");
  await page.getByLabel("To", { exact: true }).fill("whatsapp:12");
  await page.getByRole("button", { name: "Send the test message" }).click();
  await alert(page).getByText("Must act").waitFor();
  assert.equal(await page.getByLabel("Variable 1").inputValue(), "Ada <b>");
  await page.getByLabel("To", { exact: true }).fill(`whatsapp:${config.reader}`);
  await page.getByRole("button", { name: "Send the test message" }).click();
  await page.getByText("The message is accepted.").waitFor();
}

async function notifications(page) {
  if (state === "empty") {
    await page.getByText("No notification matches.").waitFor();
    return;
  }
  // The test message of the template is a notification with one attempt.
  await page.getByLabel("Recipient").fill(config.reader);
  await page.getByRole("button", { name: "Search" }).click();
  await page.getByRole("region", { name: "Notifications" }).locator("tbody tr").first().getByRole("link").click();
  await page.getByRole("heading", { name: /^Notification nt_/ }).waitFor();
  await page.locator(".timeline").getByText("whatsapp with").waitFor();
  await inspect(page, "notification");
}

async function deliveries(page) {
  if (state === "empty") {
    await page.getByText("This sidecar has no sinks.").waitFor();
    await page.getByText("There is no dead letter.").waitFor();
    await page.getByText("There is no replay.").waitFor();
    return;
  }
  await page.getByRole("button", { name: "Send a test event" }).click();
  await page.getByText("Test event for app:").waitFor();
  await page.getByText("HTTP 422").first().waitFor();
  await page.getByText(markup).first().waitFor();

  // Nothing is selected; then one, opened or selected; then all of the sink.
  await page.getByRole("button", { name: "Retry the selected ones" }).click();
  await alert(page).getByText("Select at least one dead letter.").waitFor();
  const letters = page.getByRole("region", { name: "Dead letters" }).locator("tbody tr");
  await letters.first().getByRole("link").click();
  await page.getByText("Event that the sink receives").waitFor();
  await inspect(page, "dead-letter");
  await page.getByRole("button", { name: "Discard" }).click();
  await page.getByText("One dead letter is discarded.").waitFor();
  assert.equal(await letters.count(), 3);
  await letters.first().getByRole("checkbox").check();
  await page.getByRole("button", { name: "Discard the selected ones" }).click();
  await page.getByText("One dead letter is discarded.").waitFor();
  await page.getByLabel("Sink", { exact: true }).selectOption("app");
  await page.getByRole("button", { name: "Search" }).click();
  await page.getByLabel("Select all on this page").check();
  assert.equal(await letters.locator("input:checked").count(), 2);
  await page.getByRole("button", { name: "Retry all of sink app" }).click();
  await page.getByText("2 dead letters are queued for delivery again.").waitFor();

  await page.getByRole("link", { name: "Replay webhooks" }).click();
  await inspect(page, "new-replay");
  await page.getByRole("button", { name: "Count only" }).click();
  await alert(page).getByText("Must act").waitFor();
  await page.getByLabel("From (UTC)").fill("2020-01-01");
  await page.getByRole("button", { name: "Count only" }).click();
  await page.getByRole("status").getByText("would be delivered to app").waitFor();
  await page.getByRole("button", { name: "Start the replay" }).click();
  await page.getByRole("heading", { name: /^Replay RP/ }).waitFor();
  await page.locator(".facts").getByText("done").waitFor();
  await inspect(page, "replay");
  await page.getByRole("link", { name: "Deliveries", exact: true }).click();
  const replays = page.getByRole("region", { name: "Replays" });
  await replays.locator("tbody tr", { hasText: "done" }).getByText("4 of 4").waitFor();
  await inspect(page, "deliveries-replays");
}

async function accounts(page) {
  if (state === "empty") {
    await page.getByText("No account has a profile").waitFor();
    await page.getByText("No key is bound to this account.").waitFor();
    return;
  }
  await page.getByText("Create an API key").click();
  await page.getByLabel("Name", { exact: true }).fill(markup);
  await page.getByRole("button", { name: "Create the key" }).click();
  assert.match(await page.locator("#token").innerText(), /^twilio_edge_/);
  await inspect(page, "new-key");
  await page.getByRole("link", { name: "Show the key" }).click();
  await page.getByRole("heading", { name: markup }).waitFor();
  await page.getByRole("button", { name: "Revoke the key" }).click();
  await page.getByText("The key is revoked").waitFor();

  await page.getByRole("link", { name: "Accounts and keys" }).last().click();
  await page.locator("main").getByLabel("Account", { exact: true }).first().fill(config.account);
  await page.getByRole("button", { name: "Search" }).click();
  await page.getByText("The account has no profile").waitFor();
  await page.getByLabel("Name", { exact: true }).fill(markup);
  await page.getByLabel("Settings that replace those of [policy]").fill("[1]");
  await page.getByRole("button", { name: "Save the profile" }).click();
  await alert(page).getByText("policy: must be a JSON object").waitFor();
  assert.equal(await page.getByLabel("Name", { exact: true }).inputValue(), markup);
  await page.getByLabel("Settings that replace those of [policy]").fill("");
  await page.getByRole("button", { name: "Save the profile" }).click();
  await page.getByText("The profile is in effect here").waitFor();
  await page.locator(".facts").getByText(markup).waitFor();
  await inspect(page, "account");
  await page.getByRole("button", { name: "Close the account" }).click();
  await page.getByText("The account is closed.").waitFor();
}

async function audit(page) {
  if (state === "empty") {
    await page.getByText("No entry matches.").waitFor();
    return;
  }
  // The console's actions are here: those that change something, and the message that a person sent.
  const entries = page.getByRole("region", { name: "Audit log" }).locator("tbody tr");
  await page.getByLabel("Action").fill("message.created");
  await page.getByRole("button", { name: "Search" }).click();
  await row(page, "message.created").getByText(", session").waitFor();
  assert.equal(await entries.count(), 1);
  await entries.getByRole("link", { name: /^ms_/ }).click();
  await page.getByRole("heading", { name: /^Message ms_/ }).waitFor();
  await page.goBack();
  await entries.getByRole("link", { name: /^key / }).click();
  await row(page, "suppression.added").waitFor();
  await page.getByLabel("From (UTC)").fill("tomorrow");
  await page.getByRole("button", { name: "Search" }).click();
  await alert(page).getByText("since").first().waitFor();
  await page.getByLabel("From (UTC)").fill("2999-01-01");
  await page.getByRole("button", { name: "Search" }).click();
  await page.getByText("No entry matches.").waitFor();
  await page.getByRole("link", { name: "Clear" }).click();
  await row(page, "replay.started").getByRole("link", { name: /^RP/ }).click();
  await page.getByRole("heading", { name: /^Replay RP/ }).waitFor();
}

async function settings(page) {
  await page.getByLabel("Name or variable").fill("TWILIO_EDGE_TOKEN");
  await page.getByRole("button", { name: "Search" }).click();
  await row(page, "TWILIO_EDGE_TOKEN").first().getByText("***").waitFor();
  await page.getByLabel("Name or variable").fill("no such setting");
  await page.getByRole("button", { name: "Search" }).click();
  await page.getByText("No setting matches.").waitFor();
}
