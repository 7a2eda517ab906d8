/** Errors of this package. Each one says who must act. */
import { DESCRIPTIONS } from "./operations.js";
import type { components } from "./v1.js";

/** A refusal of the API: `application/problem+json`. */
export type Problem = components["schemas"]["Problem"];
/** Party that must act. */
export type Actor = Problem["actor"];

/** Base class of all errors of this package. */
export class EdgeError extends Error {
  override readonly name: string = "EdgeError";
}

/** A request that the filter of twilio-edge has not verified, or that is for another account. */
export class UnverifiedWebhookError extends EdgeError {
  override readonly name = "UnverifiedWebhookError";
}

/** A request that is no signed event of the sidecar: the signature, the time or the body is wrong. */
export class UnverifiedEventError extends EdgeError {
  override readonly name = "UnverifiedEventError";
}

/** A refusal or failure of the API. */
export class ApiError extends EdgeError {
  override readonly name = "ApiError";
  /** Stable word for the cause, for instance `suppressed`; undefined if the response is none of the sidecar. */
  readonly code: Problem["code"] | undefined;
  /** Party that must act. */
  readonly actor: Actor | undefined;
  /** Action that removes the cause, as this version knows it. */
  readonly remedy: string | undefined;
  /** Explanation for this request, which names the field or dependency. */
  readonly detail: string | undefined;

  /**
   * @param status HTTP status of the response.
   * @param problem Fields of the response, if it is one of the sidecar.
   * @param retryAfterSeconds Seconds after which a retry is useful, from the header Retry-After.
   */
  constructor(
    readonly status: number,
    readonly problem: Problem | undefined,
    readonly retryAfterSeconds?: number,
  ) {
    const remedy = problem && remedyOf(problem.code, problem.title);
    const parts = [`${[status, problem?.code].filter(Boolean).join(" ")}: ${problem?.title ?? "the response is none of twilio-edge"}`];
    for (const part of [problem?.detail, remedy]) if (part && !parts.includes(part)) parts.push(part);
    super(parts.map((part) => part.replace(/\.$/, "")).join(". "));
    this.code = problem?.code;
    this.actor = problem?.actor;
    this.remedy = remedy;
    this.detail = problem?.detail;
  }
}

/** Returns the general remedy for a code of the sidecar. */
function remedyOf(code: string, title: string): string | undefined {
  // STATUS, for the ACTOR: TITLE. REMEDY
  const described = DESCRIPTIONS[code]?.replace(/^\d+, for the \w+: /, "");
  return described?.startsWith(`${title}. `) ? described.slice(title.length + 2) : undefined;
}
