// Use of the types as CommonJS. It is compiled, and not run.
import { SinkVerifier, type Event } from "twilio-edge";
import { sinkEvent } from "twilio-edge/express";
import twilio = require("twilio-edge/sdk");

export const handler = sinkEvent("whsec_MDEy", (event: Event, _request, response) => response.send(event.event_id));
export const verifier = new SinkVerifier("whsec_MDEy");
export const client = twilio("AC1", "key");
export const response = new twilio.twiml.MessagingResponse();
