/** `require("twilio-edge/sdk")` returns a function, as `require("twilio")` does. */
import twilio, { DEFAULT_URL, EdgeRequestClient, HOST_HEADER } from "./sdk.js";

const callable = Object.assign(twilio, { default: twilio, DEFAULT_URL, EdgeRequestClient, HOST_HEADER });

export = callable;
