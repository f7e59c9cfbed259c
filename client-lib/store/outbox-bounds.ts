/** Bounds of the table `outbox` of the device store, and which of its rows are open. */
const dayMs = 24 * 3600 * 1000;

export const outboxBounds = {
  /** Waits between acceptances after which an unconfirmed copy is sent again (ms): after 24 h and 72 h. */
  resendAfterMs: [dayMs, 2 * dayMs],
  /** How long receipts and answers to requests are kept once the node has them (ms). */
  receiptsKeptMs: 3 * dayMs,
  /**
   * Waits of a copy that was refused for want of a token, until it is tried without (ms); doubled each time. A device
   * that is online has room again as soon as it has acked; what waits for one that is away takes a try an hour soon.
   */
  tokenWaitMinMs: 15_000,
  tokenWaitMaxMs: dayMs,
  /** Copies that wait for a token: of one device, and in all; what is beyond fails as it would without. */
  tokenWaitsPerDevice: 8_192,
  tokenWaitsMax: 65_536,
  /** How long the bytes of an unconfirmed copy are kept (ms), and the row itself. */
  bytesKeptMs: 30 * dayMs,
  rowsKeptMs: 45 * dayMs,
  /** Rows that do not wait for the node, and bytes that they hold; beyond, the oldest go. */
  rowsMax: 100_000,
  bytesMax: 256 * 1024 * 1024,
  /** From a question for a prekey that copies wait for to the next one, at least and at most (ms). */
  prekeyWaitMinMs: 60_000,
  prekeyWaitMaxMs: 3_600_000,
  /** Copies of a device that wait for one: each takes a key that all other members pass over. */
  prekeyWaitsPerDevice: 1_024,
  /** How often a post is sealed anew. */
  repostsMax: 16,
  /**
   * Wait of a post that came back while its group stands where it was sealed (ms); doubled each time: some three hours
   * in all, in which its sender hears of the commit before it, or its nodes of the channel's key.
   */
  repostWaitMinMs: 1_000,
  repostWaitMaxMs: 3_600_000,
} as const;

/**
 * SQL: nobody said that its device has it. A SEALED one that has a time (resend_ms) is to be sealed anew and
 * not sent.
 */
export const unsettled = `state IN ('SEALED', 'ACCEPTED', 'RELAYED')`;
