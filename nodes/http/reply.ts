/** What a route of the HTTP door answers with; http.ts puts it on a socket. */

/**
 * How long others may keep a reply: `immutable` for what never changes, `fresh` for what has to be
 * asked again each time.
 */
export type Caching = 'immutable' | 'fresh';

export interface Reply {
  readonly status: 200 | 400 | 404 | 413 | 429 | 503;
  /** Media type. */
  readonly type: string;
  readonly body: Uint8Array;
  readonly caching: Caching;
  /** For 429 and 503 (s). */
  readonly retryAfterS?: number;
}

export const bytesType = 'application/octet-stream';
export const textType = 'text/plain; charset=utf-8';
export const htmlType = 'text/html; charset=utf-8';

const utf8 = new TextEncoder();

export function found(type: string, body: Uint8Array | string, caching: Caching): Reply {
  return {
    status: 200,
    type,
    body: typeof body === 'string' ? utf8.encode(body) : body,
    caching,
  };
}

/** A refusal in one line of text. */
export function refusal(status: Exclude<Reply['status'], 200>, message: string): Reply {
  return { status, type: textType, body: utf8.encode(`${message}\n`), caching: 'fresh' };
}
