// Chromium in front of the console. Everything that a page must never do fails the test: a violation of the content security policy, an
// error of a script, a dialog, a request to another host, a serious finding of axe-core.
//
// BROWSER_MODULES names the folder with playwright-core and axe-core, SCREENSHOTS the folder for the pictures.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.BROWSER_MODULES, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const screenshots = process.env.SCREENSHOTS;
const SERIOUS = ["serious", "critical"];

// Time limit of one step, also on a busy machine.
const TIMEOUT_MS = 60_000;

// Runs a scenario in a new browser, and ends the process with its result.
export async function run(scenario) {
  mkdirSync(screenshots, { recursive: true });
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    // The sandbox of Chromium needs rights that root in a container lacks. The pages are our own.
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
  });
  try {
    await scenario(browser);
    console.log("ok");
  } finally {
    await browser.close();
  }
}

// Opens a window that fails the test on everything that a page must not do. `problems` collects it; `check` asserts.
export async function open(browser, origin, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(TIMEOUT_MS);
  const problems = [];
  await context.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      console.error(`violated ${event.violatedDirective}: ${event.blockedURI} ${event.sample}`);
    });
  });
  page.on("console", (message) => {
    const isRefusal = /^Failed to load resource: the server responded with a status of 4\d\d/.test(message.text());
    if (message.type() === "error" && !isRefusal) problems.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => problems.push(`script: ${error}`));
  page.on("dialog", (dialog) => {
    // The console itself asks before an action that cannot be undone.
    if (dialog.type() !== "confirm") problems.push(`dialog: ${dialog.message()}`);
    dialog.accept();
  });
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol !== "data:" && url.origin !== origin) problems.push(`request: ${request.url()}`);
  });
  const check = () => assert.deepEqual(problems, []);
  return { context, page, problems, check };
}

// Signs in with an API key.
export async function signIn(page, base, key) {
  await page.goto(`${base}/console/sign-in`);
  await page.getByLabel("API key").fill(key);
  await page.getByRole("button", { name: "Sign in" }).click();
}

// Checks the accessibility of a page, and stores pictures of it: in light, in dark, and on a phone.
export async function inspect(page, name) {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.screenshot({ path: join(screenshots, `${name}-${colorScheme}.png`), fullPage: true });
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    const serious = violations
      .filter(({ impact }) => SERIOUS.includes(impact))
      .map(({ id, help, nodes }) => ({ id, help, targets: nodes.map((node) => `${node.target} ${node.failureSummary}`) }));
    assert.deepEqual(serious, [], `${name} in ${colorScheme}`);
  }
  // On a phone no page is wider than the screen.
  const size = page.viewportSize();
  await page.setViewportSize({ width: 375, height: 800 });
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  await page.screenshot({ path: join(screenshots, `${name}-phone.png`), fullPage: true });
  assert.ok(width <= 376, `${name} is ${width} pixels wide on a phone`);
  await page.setViewportSize(size);
}
