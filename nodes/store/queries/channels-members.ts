/**
 * Channels, their write keys and their subscribers: who may write and read, and how a hub changes
 * that (docs: protocol/channels). Rows are the business of channels-log.ts.
 */
import {
  ConflictError,
  hubsViolation,
  InvalidArgumentError,
  isOfItsChannel,
  NotFoundError,
  PermissionDeniedError,
  ResourceExhaustedError,
  verifyChannelUpdate,
  type ParsedChannelUpdate,
} from '@quicprochat/proto';
import type { ChannelMembers, NewChannel } from '../channel-store.ts';
import { needBytes, needSeq, storeBounds } from '../bounds.ts';
import type { QueryContext } from '../operations.ts';
import type { TokenQueries } from './delivery-tokens.ts';
import type { LogAppend, LogRow } from './log-append.ts';

const minuteMs = 60_000;
const dayMs = 24 * 60 * minuteMs;

export const channelBounds = {
  /** Epochs whose write keys are kept. */
  keyEpochs: 3,
  /** How long older keys write on once somebody has left the group. */
  keyGraceMs: 10 * minuteMs,
  /** Subscriptions of one device, and those that came without a valid delivery token. */
  perDevice: 4_096,
  strangersPerDevice: 50,
  /** Channels that the updates of one domain made. */
  perMaker: 100_000,
  /** How long a subscriber that is silent keeps rows for itself; renewed at most daily. */
  leaseMs: 30 * dayMs,
  renewAfterMs: dayMs,
  /** How long keys and hubs of a channel without subscribers are remembered. */
  emptyMs: 30 * dayMs,
} as const;

/** A log of kind 2 with what belongs to the channel as a whole. */
export interface ChannelRow extends LogRow {
  readonly hubs: string;
  readonly epoch: number;
  readonly empty_since_ms: number | null;
}

export interface CursorRow {
  readonly device: number;
  /** Head when it subscribed: it reads what came later. */
  readonly joined: number;
  readonly acked: number;
  readonly lease_until_ms: number;
  readonly is_live: number;
  readonly is_stranger: number;
  /** Last seq that it reads, having been taken out; null: a subscriber. */
  readonly until: number | null;
}

export interface ChannelMemberQueries {
  byCid(cid: Uint8Array): ChannelRow | undefined;
  /**
   * The channel and the subscriber's cursor. Throws NotFoundError UNKNOWN_CHANNEL, or where the device subscribes
   * to as many as it may, so that updates leave it out, ResourceExhaustedError QUOTA.
   */
  need(rid: Uint8Array, cid: Uint8Array): { channel: ChannelRow; cursor: CursorRow };
  create(nowMs: number, rid: Uint8Array, channel: NewChannel): { readonly wasNew: boolean };
  /** Public half of the write key that is valid for an epoch now. */
  writePub(nowMs: number, channel: number, epoch: number): Uint8Array | undefined;
  /** Throws PermissionDeniedError PEER_DENIED when the channel is here and `from` is no hub of it. */
  needHub(from: string, cid: Uint8Array): void;
  /** The update's effects, to be had by a call; throws the typed refusal and writes nothing itself. */
  prepareUpdate(nowMs: number, from: string, update: ParsedChannelUpdate): () => void;
  members(rid: Uint8Array, cid: Uint8Array): ChannelMembers;
  /** Notes whether there is a subscriber at all. */
  noteEmpty(nowMs: number, channel: number): void;
}

export function channelMemberQueries(
  { db, needRoom }: QueryContext,
  logs: LogAppend,
  tokens: TokenQueries,
): ChannelMemberQueries {
  const columns = `log.id, log.key, log.head, log.acked, log.row_count, log.byte_count,
    channel.hubs, channel.epoch, channel.empty_since_ms`;
  const byCid = db.prepare<[Uint8Array], ChannelRow>(
    `SELECT ${columns} FROM log JOIN channel ON channel.log = log.id WHERE kind = 2 AND key = ?`,
  );
  const deviceOf = db
    .prepare<[Uint8Array], number>('SELECT id FROM device WHERE identity_pub = ?')
    .pluck();
  const cursorOf = db.prepare<[number, number], CursorRow>(
    `SELECT device, joined, acked, lease_until_ms, is_live, is_stranger, until FROM channel_cursor
      WHERE log = ? AND device = ?`,
  );
  const subscriptions = db
    .prepare<[number], number>('SELECT count(*) FROM channel_cursor WHERE device = ?')
    .pluck();
  const strangers = db
    .prepare<[number], number>(
      'SELECT count(*) FROM channel_cursor WHERE device = ? AND is_stranger = 1',
    )
    .pluck();
  const madeBy = db
    .prepare<[string], number>('SELECT count(*) FROM channel WHERE made_by = ?')
    .pluck();
  const insertLog = db.prepare<[Uint8Array]>('INSERT INTO log (kind, key) VALUES (2, ?)');
  const insertChannel = db.prepare<[number, string, number, string]>(
    'INSERT INTO channel (log, hubs, epoch, made_by) VALUES (?, ?, ?, ?)',
  );
  const insertKey = db.prepare<[number, number, Uint8Array]>(
    'INSERT INTO channel_key (log, epoch, write_pub) VALUES (?, ?, ?)',
  );
  const subscribe = db.prepare<[Readonly<Record<string, number>>]>(
    `INSERT OR REPLACE INTO channel_cursor
       (log, device, joined, acked, lease_until_ms, is_live, is_stranger)
     VALUES (:log, :device, :head, :head, :leaseUntilMs, 1, :isStranger)`,
  );
  const dropRead = db.prepare<[number, number, number]>(
    'DELETE FROM channel_cursor WHERE log = ? AND device = ? AND (acked >= ? OR is_live = 0)',
  );
  const takeOut = db.prepare<[number, number, number]>(
    'UPDATE channel_cursor SET until = ? WHERE log = ? AND device = ? AND until IS NULL',
  );
  const keyOf = db
    .prepare<[number, number, number], Uint8Array>(
      `SELECT write_pub FROM channel_key
        WHERE log = ? AND epoch = ? AND (dies_ms IS NULL OR dies_ms > ?)`,
    )
    .pluck();
  const dropKeys = db.prepare<[number, number]>(
    'DELETE FROM channel_key WHERE log = ? AND epoch <= ?',
  );
  const dropAllKeys = db.prepare<[number]>('DELETE FROM channel_key WHERE log = ?');
  const killKeys = db.prepare<[number, number, number]>(
    `UPDATE channel_key SET dies_ms = min(coalesce(dies_ms, 9e15), ?)
      WHERE log = ? AND epoch < ?`,
  );
  const advance = db.prepare<[string, number, number]>(
    'UPDATE channel SET hubs = ?, epoch = ?, trim_due = 1 WHERE log = ?',
  );
  const ridsOf = db
    .prepare<[number], Uint8Array>(
      `SELECT identity_pub FROM channel_cursor JOIN device ON device.id = channel_cursor.device
        WHERE log = ? AND until IS NULL ORDER BY identity_pub`,
    )
    .pluck();
  const setEmpty = db.prepare<[number, number]>(
    `UPDATE channel SET empty_since_ms = CASE
       WHEN EXISTS (SELECT 1 FROM channel_cursor
         WHERE channel_cursor.log = channel.log AND until IS NULL) THEN NULL
       ELSE coalesce(empty_since_ms, ?) END
      WHERE log = ?`,
  );

  function insert(channel: Pick<NewChannel, 'cid' | 'hubs' | 'epoch' | 'writePub' | 'madeBy'>) {
    const log = Number(insertLog.run(channel.cid).lastInsertRowid);
    insertChannel.run(log, encodeHubs(channel.hubs), channel.epoch, channel.madeBy);
    insertKey.run(log, channel.epoch, channel.writePub);
    return log;
  }

  function join(nowMs: number, log: number, head: number, device: number, isStranger: boolean) {
    const leaseUntilMs = nowMs + channelBounds.leaseMs;
    subscribe.run({ log, device, head, leaseUntilMs, isStranger: isStranger ? 1 : 0 });
  }

  function isFull(device: number): boolean {
    return (subscriptions.get(device) ?? 0) >= channelBounds.perDevice;
  }

  /**
   * Devices that an update adds, and whether each is subscribed without a token; `isOfDevices`: there are some,
   * or would be, if they had room for another channel.
   */
  function admitted(channel: ChannelRow | undefined, { update }: ParsedChannelUpdate) {
    const devices = new Map<number, boolean>();
    let isOfDevices = false;
    for (const { rid, token } of update.add) {
      const device = deviceOf.get(rid);
      // The device left while the update was on its way.
      if (device === undefined) continue;
      if (channel !== undefined && cursorOf.get(channel.id, device)?.until === null) continue;
      const inbox = logs.byKey(rid);
      const isStranger = inbox !== undefined && tokens.isStranger(inbox.id, token);
      const isTooStrange =
        isStranger && (strangers.get(device) ?? 0) >= channelBounds.strangersPerDevice;
      if (isTooStrange) continue;
      isOfDevices = true;
      // One device that is full does not keep the others out: it finds out by itself (`need`).
      if (!isFull(device)) devices.set(device, isStranger);
    }
    return { devices, isOfDevices };
  }

  /** A channel that this node hears of for the first time. */
  function first(nowMs: number, from: string, parsed: ParsedChannelUpdate): () => void {
    const { cid, hubs, writePub } = parsed.update;
    if (!hubs.includes(from)) throw notHub();
    if (!isOfItsChannel(parsed.update)) {
      throw new InvalidArgumentError(
        'BAD_FIELD',
        'channel update: cid of other hubs or another seed',
      );
    }
    if (writePub.length === 0) throw unknownChannel(cid);
    const { devices, isOfDevices } = admitted(undefined, parsed);
    if (!isOfDevices) throw unknownChannel(cid);
    if ((madeBy.get(from) ?? 0) >= channelBounds.perMaker) {
      throw new ResourceExhaustedError('QUOTA', `${from} made too many channels here`);
    }
    needRoom();
    return () => {
      const log = insert({ cid, hubs, epoch: parsed.epoch, writePub, madeBy: from });
      for (const [device, isStranger] of devices) join(nowMs, log, 0, device, isStranger);
      setEmpty.run(nowMs, log);
    };
  }

  function next(nowMs: number, channel: ChannelRow, parsed: ParsedChannelUpdate): void {
    const { update, epoch } = parsed;
    const { id: log, key } = channel;
    const { devices } = admitted(channel, parsed);
    // Now, and not when the update was checked: a post may have come between.
    const head = byCid.get(key)?.head ?? channel.head;
    if (update.writePub.length === 0) dropAllKeys.run(log);
    else insertKey.run(log, epoch, update.writePub);
    dropKeys.run(log, epoch - channelBounds.keyEpochs);
    if (update.removal) killKeys.run(nowMs + channelBounds.keyGraceMs, log, epoch);
    for (const rid of update.remove) {
      const device = deviceOf.get(rid);
      if (device === undefined) continue;
      // What was posted before is still its own.
      dropRead.run(log, device, head);
      takeOut.run(head, log, device);
    }
    for (const [device, isStranger] of devices) join(nowMs, log, head, device, isStranger);
    advance.run(encodeHubs(update.hubs), epoch, log);
    setEmpty.run(nowMs, log);
  }

  /** The last device of this node left the group, which went on without it: it begins here once more. */
  function again(nowMs: number, channel: ChannelRow, parsed: ParsedChannelUpdate): () => void {
    const { cid, writePub } = parsed.update;
    const isOver = keyOf.get(channel.id, channel.epoch, nowMs) === undefined;
    const isLeft = channel.empty_since_ms !== null && !isOver && writePub.length > 0;
    if (!isLeft || !isOfItsChannel(parsed.update) || !admitted(channel, parsed).isOfDevices) {
      throw unknownChannel(cid);
    }
    return () => {
      dropAllKeys.run(channel.id);
      next(nowMs, channel, parsed);
    };
  }

  function need(rid: Uint8Array, cid: Uint8Array) {
    needBytes(rid, storeBounds.ridBytes, 'rid');
    needBytes(cid, storeBounds.keyBytes, 'cid');
    const channel = byCid.get(cid);
    const device = deviceOf.get(rid);
    const cursor =
      channel === undefined || device === undefined ? undefined : cursorOf.get(channel.id, device);
    if (channel !== undefined && cursor !== undefined) return { channel, cursor };
    // A channel of others and none at all are the same answer: either says something of the device alone.
    if (device !== undefined && isFull(device)) throw tooManyChannels(cid);
    throw unknownChannel(cid);
  }

  return {
    byCid: (cid) => byCid.get(cid),
    need,

    create(nowMs, rid, channel) {
      const { cid, hubs, epoch, writePub } = channel;
      needBytes(rid, storeBounds.ridBytes, 'rid');
      needBytes(cid, storeBounds.keyBytes, 'cid');
      needBytes(writePub, storeBounds.keyBytes, 'writePub');
      needSeq(epoch, 'epoch');
      const wrongHubs = hubsViolation(hubs);
      if (wrongHubs !== undefined) {
        throw new InvalidArgumentError('BAD_FIELD', `hubs: ${wrongHubs}`);
      }
      const device = deviceOf.get(rid);
      if (device === undefined) throw new NotFoundError('UNKNOWN_DEVICE', 'no device of this node');
      const known = byCid.get(cid);
      if (known !== undefined) {
        if (cursorOf.get(known.id, device) !== undefined) return { wasNew: false };
        throw new ConflictError('NAME_TAKEN', 'the channel is there, and not yours');
      }
      if (isFull(device)) throw tooManyChannels(cid);
      needRoom();
      join(nowMs, insert(channel), 0, device, false);
      return { wasNew: true };
    },

    writePub: (nowMs, channel, epoch) => keyOf.get(channel, epoch, nowMs),

    needHub(from, cid) {
      const channel = byCid.get(cid);
      if (channel !== undefined && !decodeHubs(channel.hubs).includes(from)) throw notHub();
    },

    prepareUpdate(nowMs, from, parsed) {
      const channel = byCid.get(parsed.update.cid);
      if (channel === undefined) return first(nowMs, from, parsed);
      if (!decodeHubs(channel.hubs).includes(from)) throw notHub();
      if (parsed.epoch <= channel.epoch) return () => {};
      if (parsed.epoch > channel.epoch + 1) return again(nowMs, channel, parsed);
      const parentKey = keyOf.get(channel.id, channel.epoch, nowMs);
      if (parentKey === undefined || !verifyChannelUpdate(parsed, parentKey)) {
        throw new InvalidArgumentError('BAD_SIGNATURE', 'not signed by the epoch before');
      }
      return () => next(nowMs, channel, parsed);
    },

    members(rid, cid) {
      const { channel, cursor } = need(rid, cid);
      if (cursor.until !== null) throw unknownChannel(cid);
      return { rids: ridsOf.all(channel.id), epoch: channel.epoch };
    },

    noteEmpty(nowMs, channel) {
      setEmpty.run(nowMs, channel);
    },
  };
}

/** The refusal of a channel, or of an epoch of one, that this node does not know, or not yet. */
export function unknownChannel(cid: Uint8Array): NotFoundError {
  return new NotFoundError('UNKNOWN_CHANNEL', 'this node has no such channel for you', {
    details: cid,
  });
}

function tooManyChannels(cid: Uint8Array): ResourceExhaustedError {
  return new ResourceExhaustedError('QUOTA', 'the device subscribes to too many channels', {
    details: cid,
  });
}

function notHub(): PermissionDeniedError {
  return new PermissionDeniedError('PEER_DENIED', 'that domain is no hub of the channel');
}

function encodeHubs(hubs: readonly string[]): string {
  return hubs.join(' ');
}

function decodeHubs(hubs: string): readonly string[] {
  return hubs.split(' ');
}
