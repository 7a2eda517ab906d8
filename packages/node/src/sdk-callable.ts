/** `require("twilio-edge/sdk")` returns a function, as `require("twilio")` does. */
import twilio, { DEFAULT_URL, EdgeRequestClient, HOST_HEADER } from "./sdk.js";

type Callable = typeof twilio & {
  default: typeof twilio;
  DEFAULT_URL: string;
  EdgeRequestClient: typeof EdgeRequestClient;
  HOST_HEADER: string;
};

const callable: Callable = Object.assign(twilio, { default: twilio, DEFAULT_URL, EdgeRequestClient, HOST_HEADER });

export = callable;
