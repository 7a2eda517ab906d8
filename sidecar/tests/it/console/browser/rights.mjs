// Rights of the console: those of the key, and only as long as its session. argv: JSON with the origins `main` and `admin`, the key
// `app`, the key `admin_key`, and `revoke`, a URL that revokes the key `app`.
import assert from "node:assert/strict";

import { open, run, signIn } from "./browser.mjs";

const config = JSON.parse(process.argv[2]);

await run(async (browser) => {
  const { context, page, check } = await open(browser, config.main);
  const links = () => page.getByRole("navigation", { name: "Pages" }).getByRole("link").allInnerTexts();

  // A page that needs a session leads to the sign-in, and from there back.
  await page.goto(`${config.main}/console/messages?state=unknown`);
  await page.getByLabel("API key").fill(config.app);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL(`${config.main}/console/messages?state=unknown`);
  assert.deepEqual(await links(), ["Overview", "Webhooks", "Refusals", "Messages", "Notifications", "Contacts", "Templates"]);

  // Scripts do not see the cookie, and it belongs to this site.
  const [cookie] = await context.cookies();
  assert.deepEqual(
    [cookie.name, cookie.httpOnly, cookie.sameSite, cookie.path],
    ["twilio_edge_session", true, "Strict", "/console"],
  );
  assert.equal(await page.evaluate(() => document.cookie), "");

  // Sign-out ends the session at the API, too.
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("API key").waitFor();
  await context.addCookies([cookie]);
  await page.goto(`${config.main}/console/messages`);
  await page.getByLabel("API key").waitFor();

  // A revoked key ends its sessions.
  await signIn(page, config.main, config.app);
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  const revoked = await fetch(config.revoke, { method: "DELETE", headers: { authorization: `Bearer ${config.admin_key}` } });
  assert.equal(revoked.status, 200);
  await page.goto(`${config.main}/console/webhooks`);
  await page.getByLabel("API key").waitFor();
  check();
});
