//! TwiML `<Redirect>`: Twilio requests another URL with the same MessageSid, and the application's answer to that request is what
//! counts. Each URL of a message is deduplicated by itself, and a chain of redirects ends.

use anyhow::{Context, Result, bail, ensure};
use twilio_edge_wasm_tests::client::Response;
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::recorder::Answer;
use twilio_edge_wasm_tests::stack::{ORIGIN, Plan, SidecarPlan, Signing, Stack};
use twilio_edge_wasm_tests::webhook::{Form, INBOUND, Request};

use crate::expect::arrived;
use crate::suite::{Scenario, Setting, scenarios};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let shared = scenarios![Setting::Shared;
        redirect_step_reaches_the_application,
        refused_step_reaches_the_application_again,
        fallback_after_a_lost_answer_is_a_duplicate,
        redirect_back_to_an_earlier_url_ends,
        redirect_to_ever_new_urls_ends,
    ];
    let own = scenarios![Setting::Own(Plan::new(SidecarPlan::Sqlite));
        redirect_step_is_known_after_a_restart,
        redirect_step_is_forwarded_without_a_sidecar,
    ];
    [shared.as_slice(), &own].concat()
}

const STEP: &str = "/twilio/inbound?step=2";
const REDIRECT: &str = "<Response><Redirect>/twilio/inbound?step=2</Redirect></Response>";
const REPLY: &str = "<Response><Message>How can we help?</Message></Response>";

fn twiml(text: &str) -> Answer {
    Answer::ok("text/xml", text)
}

/// Sends a request that the application answers with `text`, if it gets it.
async fn answered(stack: &Stack, request: &Request, text: &str) -> Result<Response> {
    stack.backend.script(&request.case, [twiml(text)]);
    let response = stack.send(request).await?;
    ensure!(response.status == 200, "{} {}", response.status, response.text());
    Ok(response)
}

/// A message whose first answer was a redirect, and the signed request that Twilio makes then.
async fn redirected(stack: &Stack) -> Result<(Form, Request)> {
    let form = Form::inbound("hello");
    let first = stack.post(&form).await?;
    assert_eq!(answered(stack, &first, REDIRECT).await?.text(), REDIRECT);
    arrived(stack, &first).await?;
    Ok((form.clone(), stack.post(&form.to(STEP)).await?))
}

/// `request` must be answered with `text` without reaching the application.
async fn is_duplicate(stack: &Stack, request: &Request, text: &str) -> Result<()> {
    let response = answered(stack, request, "<Response><!-- not this --></Response>").await?;
    ensure!(response.text().ends_with(text), "{}", response.text());
    ensure!(response.header("x-twilio-edge-dedupe").as_deref() == Some("duplicate"));
    stack.nothing_reached(request).await
}

async fn redirect_step_reaches_the_application(stack: &Stack) -> Result<()> {
    let (form, step) = redirected(stack).await?;
    assert_eq!(answered(stack, &step, REPLY).await?.text(), REPLY);
    let seen = arrived(stack, &step).await?.trusted();
    assert_eq!(seen["message-sid"], form.get("MessageSid"));
    assert_eq!((seen["dedupe"].as_str(), seen["attempt"].as_str()), ("first", "1"));
    // A retry of each URL gets the answer of that URL, in any order and with any method.
    for _ in 0..2 {
        is_duplicate(stack, &step.clone().as_new_case(), REPLY).await?;
    }
    let get = stack.get_as(&form, Signing::default()).await?;
    is_duplicate(stack, &get, REDIRECT).await?;
    is_duplicate(stack, &stack.post(&form).await?, REDIRECT).await?;
    is_duplicate(stack, &step.as_new_case(), REPLY).await
}

async fn refused_step_reaches_the_application_again(stack: &Stack) -> Result<()> {
    let (_, step) = redirected(stack).await?;
    stack.backend.script(&step.case, [Answer::status(503), twiml(REPLY)]);
    assert_eq!(stack.send(&step).await?.status, 503);
    let retry = stack.send(&step).await?;
    assert_eq!((retry.status, retry.text().as_str()), (200, REPLY));
    let seen = stack.backend.wait(&step.case, 2).await?;
    assert_eq!(seen[1].trusted()["attempt"], "2");
    is_duplicate(stack, &step.as_new_case(), REPLY).await
}

/// The application accepted the step, Twilio lost its answer and calls the fallback URL.
async fn fallback_after_a_lost_answer_is_a_duplicate(stack: &Stack) -> Result<()> {
    let (form, step) = redirected(stack).await?;
    answered(stack, &step, REPLY).await?;
    let fallback = |failed: &str| {
        let form = form.clone().to("/twilio/inbound?fallback=1").add("ErrorCode", "11200");
        form.add("ErrorUrl", failed)
    };
    for (failed, answer) in [(STEP, REPLY), (INBOUND, REDIRECT)] {
        let request = stack.post(&fallback(&format!("{ORIGIN}{failed}"))).await?;
        is_duplicate(stack, &request, answer).await.with_context(|| failed.to_owned())?;
    }
    // A URL that is none of ours belongs to the message, which was accepted.
    let request = stack.post(&fallback("https://elsewhere.example.com/in")).await?;
    is_duplicate(stack, &request, REDIRECT).await?;
    // After a step that the application refused, the fallback reaches it.
    let (form, step) = redirected(stack).await?;
    stack.backend.script(&step.case, [Answer::status(500)]);
    assert_eq!(stack.send(&step).await?.status, 500);
    let form = form.to("/twilio/inbound?fallback=1").add("ErrorCode", "11200");
    let fallback = stack.post(&form.add("ErrorUrl", &format!("{ORIGIN}{STEP}"))).await?;
    assert_eq!(answered(stack, &fallback, REPLY).await?.text(), REPLY);
    arrived(stack, &fallback).await?;
    Ok(())
}

/// Most requests that a test makes of one message. Without a bound, the chains below have no end.
const MOST_REQUESTS: usize = 100;

/// Follows redirects as Twilio does, from the route of messages, until an answer has none. The application redirects the
/// request of each number to `next`. Returns how many requests were made, and how many the application got.
async fn follow(stack: &Stack, next: impl Fn(usize) -> String) -> Result<(usize, usize)> {
    let form = Form::inbound("hello");
    let (mut target, mut at_backend) = (INBOUND.to_owned(), 0);
    for count in 1..=MOST_REQUESTS {
        let request = stack.post(&form.clone().to(&target)).await?;
        let redirect = format!("<Response><Redirect>{}</Redirect></Response>", next(count));
        let answer = answered(stack, &request, &redirect).await?.text();
        at_backend += stack.backend.seen(&request.case).len();
        let redirect = answer.split_once("<Redirect>").and_then(|(_, it)| it.split_once("</"));
        match redirect {
            Some((url, _)) => target = url.to_owned(),
            None => return Ok((count, at_backend)),
        }
    }
    bail!("{MOST_REQUESTS} redirects, {at_backend} of them by the application")
}

async fn redirect_back_to_an_earlier_url_ends(stack: &Stack) -> Result<()> {
    let itself = follow(stack, |_| INBOUND.to_owned()).await?;
    assert_eq!(itself, (4, 1), "a URL that redirects to itself");
    let urls = [STEP, INBOUND];
    let there_and_back = follow(stack, |count| urls[(count + 1) % 2].to_owned()).await?;
    assert_eq!(there_and_back, (7, 2), "two URLs that redirect to each other");
    Ok(())
}

async fn redirect_to_ever_new_urls_ends(stack: &Stack) -> Result<()> {
    let (_, at_backend) = follow(stack, |count| format!("{INBOUND}?step={count}")).await?;
    assert_eq!(at_backend, 17, "the first URL and 16 more");
    Ok(())
}

async fn redirect_step_is_known_after_a_restart(stack: &Stack) -> Result<()> {
    let (form, step) = redirected(stack).await?;
    answered(stack, &step, REPLY).await?;
    let ledger = stack.ledger().await?;
    until("both steps to be stored", async || {
        let events = ledger.events(form.get("MessageSid")).await?;
        let accepted = events.iter().filter(|it| it.outcome.as_deref() == Some("accepted"));
        Ok((accepted.count() == 2).then_some(()))
    })
    .await?;
    stack.sidecar()?.kill().await?;
    stack.sidecar()?.restart().await?;
    is_duplicate(stack, &step.as_new_case(), REPLY).await?;
    is_duplicate(stack, &stack.post(&form).await?, REDIRECT).await?;
    let third = stack.post(&form.to("/twilio/inbound?step=3")).await?;
    assert_eq!(answered(stack, &third, REPLY).await?.text(), REPLY);
    arrived(stack, &third).await?;
    Ok(())
}

/// Without a verdict every step is forwarded, as every message is, and what comes after it is known again.
async fn redirect_step_is_forwarded_without_a_sidecar(stack: &Stack) -> Result<()> {
    let (form, step) = redirected(stack).await?;
    stack.ledger().await?.settled(form.get("MessageSid"), "accepted", 1).await?;
    stack.sidecar()?.kill().await?;
    assert_eq!(answered(stack, &step, REPLY).await?.text(), REPLY);
    assert_eq!(arrived(stack, &step).await?.trusted()["dedupe"], "unknown");
    stack.sidecar()?.restart().await?;
    // The message was accepted at its first URL, so this settlement of a later one adds nothing.
    is_duplicate(stack, &stack.post(&form).await?, REDIRECT).await?;
    let retry = step.as_new_case();
    assert_eq!(answered(stack, &retry, REPLY).await?.text(), REPLY);
    assert_eq!(arrived(stack, &retry).await?.trusted()["dedupe"], "first");
    is_duplicate(stack, &retry.as_new_case(), REPLY).await
}
