/**
 * Twilio's SDK through the sidecar. An application changes the line that imports the SDK:
 *
 *     import twilio from "twilio-edge/sdk"; // instead of: import twilio from "twilio"
 *
 * The environment variable `TWILIO_EDGE_URL` has the URL of the sidecar; without it, the sidecar is at http://127.0.0.1:8081. The
 * password is an API key of the sidecar instead of Twilio's auth token.
 */
import twilioSdk from "twilio";

/** Header that names the host of Twilio for which a request was made. */
export const HOST_HEADER = "Twilio-Edge-Host";
/** URL of the sidecar, unless `TWILIO_EDGE_URL` or an option names another one. */
export const DEFAULT_URL = "http://127.0.0.1:8081";

type RequestClientOptions = NonNullable<ConstructorParameters<typeof twilioSdk.RequestClient>[0]>;
type RequestOptions = Parameters<InstanceType<typeof twilioSdk.RequestClient>["request"]>[0];
type SdkResponse<T> = ReturnType<typeof twilioSdk.RequestClient.prototype.request<T>>;

/** Options of the HTTP client: those of Twilio's `RequestClient`, and the sidecar. */
export interface EdgeRequestClientOptions extends RequestClientOptions {
  /** Base URL of the sidecar; default: `TWILIO_EDGE_URL`, else `http://127.0.0.1:8081`. */
  url?: string;
  /** Headers of every request, for instance `{ "Twilio-Edge-Category": "marketing" }`. */
  headers?: Readonly<Record<string, string>>;
}

/**
 * HTTP client of Twilio's SDK that sends requests to the sidecar.
 *
 * Requests to `twilio.com` and its subdomains go to the same path at `url`, and the header `Twilio-Edge-Host` names the host. A request
 * to any other host is sent as it is.
 */
export class EdgeRequestClient extends twilioSdk.RequestClient {
  readonly url: string;
  readonly #headers: Readonly<Record<string, string>>;

  /** @throws TypeError if `url` is not a base URL. */
  constructor(options: EdgeRequestClientOptions = {}) {
    const { url, headers, ...own } = options;
    super(own);
    this.url = baseUrl(url ?? (process.env["TWILIO_EDGE_URL"] || DEFAULT_URL));
    this.#headers = headers ?? {};
  }

  override request<T>(options: RequestOptions): SdkResponse<T> {
    const { hostname, pathname, search } = new URL(options.uri);
    if (hostname !== "twilio.com" && !hostname.endsWith(".twilio.com")) return super.request<T>(options as never);
    const headers = { ...options.headers, [HOST_HEADER]: hostname, ...this.#headers };
    return super.request<T>({ ...options, headers, uri: this.url + pathname + search } as never);
  }
}

/** Returns the URL without a slash at its end. */
function baseUrl(url: string): string {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (!parsed || !/^https?:$/.test(parsed.protocol) || parsed.search || parsed.hash) {
    throw new TypeError(`${JSON.stringify(url)} is no base URL: use one such as ${DEFAULT_URL}`);
  }
  return url.replace(/\/+$/, "");
}

/** Creates Twilio's client, with an `EdgeRequestClient` unless `httpClient` is given. It has all members of Twilio's SDK. */
const twilio = Object.setPrototypeOf(function twilio(...[user, password, options]: Parameters<typeof twilioSdk>) {
  const httpClient = options?.httpClient ?? new EdgeRequestClient(options as EdgeRequestClientOptions);
  return twilioSdk(user, password, { ...options, httpClient });
}, twilioSdk) as typeof twilioSdk;

export default twilio;
