/**
 * Return slips (docs: protocol/federation): what a node gives along with a message, so that it can be told
 * when the message expires unread, without the other node learning who sent it. Sealed (AES-256-GCM)
 * under a key of this database for this peer, message and device; the other node keeps it and sends it back
 * in an ExpiredReport. Nothing has to be remembered here meanwhile. Likewise for Welcomes, which a hub writes:
 * such a slip is of the Welcome's mid and its device alone.
 */
import { createCipheriv, createDecipheriv, createHash } from 'node:crypto';
import { maxTtlS, messageTag, RowKind } from '@quicprochat/proto';
import {
  create,
  ExpiredReportSchema,
  fromBinary,
  toBinary,
  type ExpiredReport,
} from '@quicprochat/proto/messages';
import { storeBounds } from '../bounds.ts';
import type { QueryContext } from '../operations.ts';
import type { LogAppend } from './log-append.ts';
import type { NoticeQueries } from './notices.ts';
import type { OutboxAppend } from './outbox.ts';
import { IncomingPayload } from './payloads.ts';

const keyName = 'return-slip-key';
const nonceBytes = 12;
const sealBytes = 16;
/** Log of the sender, the beginning of its device key, and when its message was taken. */
const contentBytes = 24;
export const slipBytes = nonceBytes + contentBytes + sealBytes;

/** A message for a device of a peer: what a slip is bound to. */
export interface SentCopy {
  readonly peer: string;
  readonly mid: Uint8Array;
  readonly tag: Uint8Array;
  readonly rid: Uint8Array;
}

/** A Welcome that some hub writes: what its slip is bound to. */
export interface WrittenWelcome {
  readonly mid: Uint8Array;
  readonly rid: Uint8Array;
}

/** What a slip says. */
export interface Sender {
  /** Log of the sending device. */
  readonly sender: number;
  readonly createdMs: number;
}

export interface ReturnSlips {
  /** Undefined when the sender is gone. */
  seal(copy: SentCopy | WrittenWelcome, sender: Sender): Uint8Array | undefined;
  /** Undefined for a slip that is not of this database and copy, or whose sender is gone. */
  open(copy: SentCopy | WrittenWelcome, slip: Uint8Array): Sender | undefined;
}

export function returnSlips({ db, random }: QueryContext, logs: LogAppend): ReturnSlips {
  const stored = db
    .prepare<[string], Uint8Array>('SELECT value FROM secret WHERE name = ?')
    .pluck();
  const insert = db.prepare<[string, Uint8Array]>('INSERT INTO secret (name, value) VALUES (?, ?)');

  /** Made when the store is opened first: those who read rows need it, and they do not write. */
  const key = stored.get(keyName) ?? freshKey();
  function freshKey(): Uint8Array {
    const fresh = random.bytes(storeBounds.keyBytes);
    insert.run(keyName, fresh);
    return fresh;
  }

  return {
    seal(copy, { sender, createdMs }) {
      const log = logs.byId(sender);
      if (log === undefined) return undefined;
      const content = Buffer.alloc(contentBytes);
      content.writeBigUInt64BE(BigInt(sender), 0);
      // A log's number may be given to another device.
      content.set(log.key.subarray(0, 8), 8);
      content.writeBigUInt64BE(BigInt(createdMs), 16);
      const nonce = random.bytes(nonceBytes);
      const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: sealBytes });
      cipher.setAAD(boundTo(copy));
      const sealed = [nonce, cipher.update(content), cipher.final()];
      return new Uint8Array(Buffer.concat([...sealed, cipher.getAuthTag()]));
    },

    open(copy, slip) {
      if (slip.length !== slipBytes) return undefined;
      const end = slipBytes - sealBytes;
      const nonce = slip.subarray(0, nonceBytes);
      const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: sealBytes });
      decipher.setAAD(boundTo(copy));
      decipher.setAuthTag(slip.subarray(end));
      const content = decipher.update(slip.subarray(nonceBytes, end));
      try {
        decipher.final();
      } catch {
        return undefined; // not ours, or of another message
      }
      const sender = Number(content.readBigUInt64BE(0));
      const log = logs.byId(sender);
      const isSame = log !== undefined && content.subarray(8, 16).equals(log.key.subarray(0, 8));
      return isSame ? { sender, createdMs: Number(content.readBigUInt64BE(16)) } : undefined;
    },
  };
}

function boundTo(copy: SentCopy | WrittenWelcome): Uint8Array {
  // Never of the same length: what binds one kind binds nothing of the other.
  if (!('tag' in copy)) return Buffer.concat([copy.mid, copy.rid, Buffer.from('qpc/welcome/1')]);
  const { peer, mid, tag, rid } = copy;
  return Buffer.concat([mid, tag, rid, Buffer.from(`qpc/return/1 ${peer}`)]);
}

/** One slip for each Welcome of a device's commit; none when the device is not here. */
export function welcomeSlips(
  slips: ReturnSlips,
  logs: LogAppend,
  committer: Uint8Array,
  welcomes: readonly WrittenWelcome[],
): Uint8Array[] {
  const sender = logs.byKey(committer)?.id;
  if (sender === undefined) return [];
  // Without a time: the notice of a loss is one and the same, however often the commit is submitted.
  return welcomes.flatMap((welcome) => slips.seal(welcome, { sender, createdMs: 0 }) ?? []);
}

/** Slips of a row for several devices, as the outbox keeps them. */
export function joinSlips(
  copies: readonly { readonly rid: Uint8Array; readonly slip?: Uint8Array | undefined }[],
): Uint8Array {
  const ofDevices = copies.filter(({ slip }) => slip?.length === slipBytes);
  return Buffer.concat(ofDevices.flatMap(({ rid, slip }) => (slip ? [rid, slip] : [])));
}

/** Of those the one for a device. */
export function slipOf(joined: Uint8Array, rid: Uint8Array): Uint8Array | undefined {
  const { ridBytes } = storeBounds;
  for (let from = 0; from < joined.length; from += ridBytes + slipBytes) {
    const start = from + ridBytes;
    if (Buffer.compare(joined.subarray(from, start), rid) !== 0) continue;
    return joined.subarray(start, start + slipBytes);
  }
  return undefined;
}

/** A row that came to nothing here: one of a peer that expired, or a Welcome that this node wrote as a hub. */
export interface LostOfPeer extends SentCopy {
  readonly slip: Uint8Array;
  /** Why the Welcome did not arrive; undefined: a row expired. */
  readonly reason?: string;
}

export interface ReturnReports {
  /**
   * Tells the peer, by its control lane: of a Welcome only that the inbox has no room for strangers, which its committer
   * can mend. A peer that is away for too long is not told.
   */
  send(nowMs: number, row: LostOfPeer): void;
  /** A peer tells: the device that sent the message gets a notice. What proves nothing is dropped. */
  take(nowMs: number, peer: string, payload: Uint8Array): void;
}

/** The one reason for which a Welcome's committer is told. */
const fullReason = 'QUEUE_FULL';

export function returnReports(
  slips: ReturnSlips,
  outbox: Pick<OutboxAppend, 'append' | 'refusal'>,
  notices: NoticeQueries,
): ReturnReports {
  /** The same for one Welcome, however often a hub tells, and under whichever certificate. */
  function tellCommitter(
    nowMs: number,
    hub: string,
    welcome: WrittenWelcome & { readonly slip: Uint8Array },
  ): void {
    const { mid, rid, slip } = welcome;
    const committer = slips.open({ mid, rid }, slip);
    if (committer === undefined) return;
    const tag = messageTag(mid, new Uint8Array(0));
    notices.bounced(nowMs, { ...committer, mid, tag, rid, domain: hub }, fullReason);
  }

  return {
    send(nowMs, { peer, mid, tag, rid, slip, reason = '' }) {
      if (reason !== '' && reason !== fullReason) return;
      const fields = create(ExpiredReportSchema, { mid, rid, slip, tag, reason });
      const report = toBinary(ExpiredReportSchema, fields);
      if (outbox.refusal(nowMs, peer, report.length) !== undefined) return;
      const reportMid = new Uint8Array(
        createHash('sha256')
          .update('qpc-expired')
          .update(report)
          .digest()
          .subarray(0, storeBounds.midBytes),
      );
      outbox.append(nowMs, peer, {
        rids: rid,
        kind: RowKind.ExpiredReport,
        mid: reportMid,
        tag: messageTag(reportMid, report),
        payload: new IncomingPayload(report),
        ttlMs: maxTtlS * 1000,
      });
    },

    take(nowMs, peer, payload) {
      const report = parse(payload);
      if (report === undefined) return;
      const { mid, tag, rid, slip, reason } = report;
      if (reason === fullReason) return tellCommitter(nowMs, peer, { mid, rid, slip });
      if (reason !== '') return;
      const sender = slips.open({ peer, mid, tag, rid }, slip);
      if (sender !== undefined) notices.expired(nowMs, { ...sender, mid, tag, rid, domain: peer });
    },
  };
}

function parse(payload: Uint8Array): ExpiredReport | undefined {
  try {
    const report = fromBinary(ExpiredReportSchema, payload);
    const { mid, tag, rid } = report;
    const { midBytes, ridBytes } = storeBounds;
    const isWhole = mid.length === midBytes && tag.length === midBytes && rid.length === ridBytes;
    return isWhole ? report : undefined;
  } catch {
    return undefined;
  }
}
