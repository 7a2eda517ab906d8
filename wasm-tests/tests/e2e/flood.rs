//! Too many parameters, headers and trailers. A request within the limits arrives completely; any other one
//! is refused without a callout, and delays no other request.

use anyhow::{Context, Result, ensure};
use futures_util::future::{join, join_all};
use serde_json::json;
use twilio_edge_demo::BACKEND_CLUSTER;
use twilio_edge_filter::form::MAX_PARAMETERS;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::client::send_bytes;
use twilio_edge_wasm_tests::http2::{Framing, send_h2};
use twilio_edge_wasm_tests::process::until;
use twilio_edge_wasm_tests::recorder::Answer;
use twilio_edge_wasm_tests::stack::{PASS_THROUGH, Plan, SidecarPlan, Signing, Stack};
use twilio_edge_wasm_tests::webhook::{Form, Request};

use crate::expect::{arrived, arrives, claimed, is_refusal, refused, willing};
use crate::suite::{Scenario, Setting, scenarios};

/// A backend that is sent trailers, which Envoy otherwise keeps from a server of HTTP/1.
const TRAILING: Plan = Plan::adapted(SidecarPlan::Scripted, |config| {
    let clusters = config.bootstrap["static_resources"]["clusters"].as_array_mut();
    let backend = clusters.context("clusters")?.iter_mut().find(|it| it["name"] == BACKEND_CLUSTER);
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    backend.context("the backend's cluster")?["typed_extension_protocol_options"] = json!({ options: {
        "@type": format!("type.googleapis.com/{options}"),
        "explicit_http_config": { "http_protocol_options": { "enable_trailers": true } },
    } });
    Ok(())
});

pub(crate) fn scenarios() -> Vec<Scenario> {
    let shipped = scenarios![Setting::Own(Plan::new(SidecarPlan::Scripted));
        ten_thousand_parameters_are_refused_in_every_framing,
        parameters_up_to_the_cap_arrive,
        headers_up_to_the_limits_arrive,
        ninety_forged_names_are_all_removed,
    ];
    let logging =
        scenarios![Setting::Own(Plan::new(SidecarPlan::Absent)); forgeries_do_not_flood_the_log];
    let trailing = scenarios![Setting::Own(TRAILING); ninety_forged_trailers_are_all_removed];
    [shipped.as_slice(), &logging, &trailing].concat()
}

/// `form` with parameters of no meaning, until there are `count`.
fn padded(form: Form, count: usize) -> Form {
    (form.params.len()..count).fold(form, |form, n| form.add(&format!("p{n}"), ""))
}

async fn ten_thousand_parameters_are_refused_in_every_framing(stack: &Stack) -> Result<()> {
    stack.scripted()?.usually(Answer::By(willing));
    let edge = stack.envoy.address();
    let form = (0..10_000).fold(Form::inbound("ten thousand"), |form, _| form.add("a", "1"));
    let flood = stack.post(&form).await?;
    ensure!(flood.body.len() < 65_536, "the cap on the body must not be what refuses it");
    refused(stack, &flood, Reason::TooManyParameters).await?;
    for trailers in ["", "x-t: 1\r\n"] {
        let response = send_bytes(edge, &flood.chunked(1000, trailers.as_bytes())).await?;
        is_refusal(&response, Reason::TooManyParameters)?;
    }
    for trailers in [&[][..], &[("x-t", b"1".as_slice())]] {
        let framing = Framing { frame: 1000, trailers, content_length: false };
        is_refusal(&send_h2(edge, &flood, framing).await?, Reason::TooManyParameters)?;
    }
    // In a query they are a header too large for Envoy before they are too many for the filter.
    let queried = stack.get_as(&form, Signing::default()).await?;
    assert_eq!(stack.send(&queried).await?.status, 431);
    stack.nothing_reached(&queried).await?;

    // Signed or not, and many at once: genuine webhooks are not delayed.
    let unsigned = flood.clone().without_header("x-twilio-signature");
    let honest = Form::inbound("and one that is none");
    let request = stack.post(&honest).await?;
    let floods = (0..50).map(|n| stack.send(if n % 2 == 0 { &flood } else { &unsigned }));
    let (floods, seen) = join(join_all(floods), arrives(stack, &request)).await;
    seen?;
    for response in floods {
        is_refusal(&response?, Reason::TooManyParameters)?;
    }
    stack.nothing_reached(&flood).await?;
    let asked = claimed(stack)?;
    assert_eq!(asked.into_iter().collect::<Vec<_>>(), [honest.get("MessageSid")]);
    Ok(())
}

async fn parameters_up_to_the_cap_arrive(stack: &Stack) -> Result<()> {
    stack.scripted()?.usually(Answer::By(willing));
    // Each request is another webhook: a repeat would not arrive.
    let forms: [fn() -> Form; 2] = [|| Form::inbound("a thousand"), || Form::status("delivered")];
    for form in forms {
        let padded = |parameters| padded(form(), parameters);
        let (post, get) = (padded(MAX_PARAMETERS), padded(MAX_PARAMETERS));
        for request in [stack.post(&post).await?, stack.get_as(&get, Signing::default()).await?] {
            arrives(stack, &request).await.context("as many as there may be")?;
        }
        let over = padded(MAX_PARAMETERS + 1);
        for request in [stack.post(&over).await?, stack.get_as(&over, Signing::default()).await?] {
            refused(stack, &request, Reason::TooManyParameters).await.context("one more")?;
        }
        // Empty pairs between separators count as parameters too.
        let mut request = stack.post(&form()).await?;
        request.body.extend(vec![b'&'; MAX_PARAMETERS]);
        refused(stack, &request, Reason::TooManyParameters).await?;
    }
    let repeated = (0..900).fold(Form::inbound("a name repeated"), |form, n| {
        form.add("MediaNote", &(n % 300).to_string())
    });
    arrives(stack, &stack.post(&repeated).await?).await?;
    Ok(())
}

/// The limits are the shipped configuration's: 100 headers, 32 KiB.
async fn headers_up_to_the_limits_arrive(stack: &Stack) -> Result<()> {
    stack.scripted()?.usually(Answer::By(willing));
    let edge = stack.envoy.address();
    let with = |request: Request, count, bytes| {
        (0..count)
            .fold(request, |request, n| request.header(&format!("x-flood-{n}"), vec![b'x'; bytes]))
    };
    for (count, bytes) in [(85, 10), (28, 1000), (1, 30_000)] {
        let form = Form::inbound("many headers");
        arrives(stack, &with(stack.post(&form).await?, count, bytes)).await?;
        let request = with(stack.post(&Form::status("sent")).await?, count, bytes);
        assert_eq!(send_h2(edge, &request, Framing::default()).await?.status, 200);
        arrived(stack, &request).await?;
    }
    let before = claimed(stack)?;
    for (count, bytes) in [(101, 1), (1000, 1), (30, 2048), (1, 60_000)] {
        let request = with(stack.post(&Form::inbound("too many")).await?, count, bytes);
        assert_eq!(stack.send(&request).await?.status, 431, "{count} of {bytes} bytes");
        let over_h2 = send_h2(edge, &request, Framing::default()).await;
        ensure!(over_h2.is_err() || over_h2.is_ok_and(|it| it.status == 431), "{count} of {bytes}");
        stack.nothing_reached(&request).await?;
    }
    assert_eq!(claimed(stack)?, before, "the filter claims no request that Envoy refuses");
    Ok(())
}

/// Two workers may log 20 refusals each at once and 5 per second, and report the number of suppressed ones.
async fn forgeries_do_not_flood_the_log(stack: &Stack) -> Result<()> {
    let forged = stack.post(&Form::inbound("forged")).await?.without_header("x-twilio-signature");
    let begun = std::time::Instant::now();
    for _ in 0..20 {
        let requests: Vec<_> = (0..25).map(|_| forged.clone().as_new_case()).collect();
        for answer in join_all(requests.iter().map(|request| stack.send(request))).await {
            is_refusal(&answer?, Reason::MissingSignature)?;
        }
    }
    let rejected = async || stack.envoy.counter("rejected.missing-signature").await;
    until("each refusal is counted", async || Ok((rejected().await? == 500).then_some(()))).await?;
    let suppressed = |log: &str| -> usize {
        let lines = log
            .lines()
            .filter_map(|line| line.split_once(" more refused webhooks were not logged"));
        lines.filter_map(|(start, _)| start.rsplit(' ').next()?.parse::<usize>().ok()).sum()
    };
    let refusals = |log: &str| log.matches("webhook rejected: reason=missing-signature").count();
    until("each refusal is logged or reported as not logged", async || {
        let log = stack.envoy.log()?;
        Ok((refusals(&log) + suppressed(&log) == 500).then_some(()))
    })
    .await?;
    let (logged, seconds) = (refusals(&stack.envoy.log()?), begun.elapsed().as_secs() + 2);
    let most = 2 * (20 + 5 * usize::try_from(seconds)?);
    ensure!(logged < 500 && logged <= most, "{logged} refusals were logged within {seconds} s");
    Ok(())
}

fn forged_names() -> Vec<String> {
    let spellings = ["x-twilio-edge-", "X_TWILIO_EDGE_", "x-Twilio_edge-"];
    (0..30).flat_map(|n| spellings.map(|spelling| format!("{spelling}{n}"))).collect()
}

async fn ninety_forged_names_are_all_removed(stack: &Stack) -> Result<()> {
    stack.scripted()?.usually(Answer::By(willing));
    let edge = stack.envoy.address();
    let names = forged_names();
    let forge = |request: Request| {
        names.iter().fold(request, |request, name| request.header(name, "forged"))
    };
    for form in [Form::inbound("forged"), Form::status("sent"), Form::other()] {
        let request = forge(stack.post(&form).await?);
        assert_eq!(stack.send(&request).await?.status, 200);
        let facts = arrived(stack, &request).await?.trusted();
        ensure!(facts.values().all(|value| !value.contains("forged")), "{facts:?}");
        let unsigned = request.as_new_case().without_header("x-twilio-signature");
        refused(stack, &unsigned, Reason::MissingSignature).await?;
    }
    let passing = forge(Request::new("POST", PASS_THROUGH, "x"));
    assert_eq!(stack.send(&passing).await?.status, 200);
    assert_eq!(send_h2(edge, &passing, Framing::default()).await?.status, 200);
    for seen in stack.backend.wait(&passing.case, 2).await? {
        ensure!(seen.trusted().is_empty(), "{:?}", seen.trusted());
    }
    Ok(())
}

async fn ninety_forged_trailers_are_all_removed(stack: &Stack) -> Result<()> {
    stack.scripted()?.usually(Answer::By(willing));
    let edge = stack.envoy.address();
    let names = forged_names();
    let lower: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
    let mut trailers: Vec<(&str, &[u8])> =
        lower.iter().map(|name| (name.as_str(), b"forged".as_slice())).collect();
    trailers.push(("x-checksum", b"1"));
    let lines: String = names.iter().map(|name| format!("{name}: forged\r\n")).collect();
    let lines = format!("{lines}x-checksum: 1\r\n");
    for over_h2 in [true, false] {
        let request = stack.post(&Form::inbound("forged behind the body")).await?;
        let response = match over_h2 {
            true => {
                let framing = Framing { trailers: &trailers, ..Framing::default() };
                send_h2(edge, &request, framing).await?
            }
            false => send_bytes(edge, &request.chunked(100, lines.as_bytes())).await?,
        };
        assert_eq!(response.status, 200);
        let body = arrived(stack, &request).await?.body.context("a body")?;
        assert_eq!(body.trailers, [("x-checksum".to_owned(), b"1".to_vec())], "what is its own");
    }
    // More than Envoy accepts.
    let request = stack.post(&Form::inbound("too many behind the body")).await?;
    let lines = lines.repeat(2);
    let response = send_bytes(edge, &request.chunked(100, lines.as_bytes())).await;
    ensure!(response.is_err() || response.is_ok_and(|it| (400..=431).contains(&it.status)));
    let twice = [trailers.as_slice(), &trailers].concat();
    let framing = Framing { trailers: &twice, ..Framing::default() };
    let response = send_h2(edge, &request, framing).await;
    ensure!(response.is_err() || response.is_ok_and(|it| (400..=431).contains(&it.status)));
    stack.nothing_reached(&request).await
}
