/**
 * What a run of clients and nodes leaves behind to be judged: one flat line per event, JSON on disk.
 * The simulator and the chaos scripts write the same lines, and the checkers beside this file are
 * pure functions over them. Times are of one clock (ms), ids are hex or names, never bytes.
 */
import { readFileSync } from 'node:fs';

/** A client operation begins; exactly one of ok, fail or unknown ends it, or none if its process died. */
export interface Invoke {
  readonly kind: 'invoke';
  readonly atMs: number;
  readonly op: number;
  readonly device: string;
  readonly action: string;
}
export interface Ended {
  /** `unknown`: it may have happened or not (a time-out, a lost reply). */
  readonly kind: 'ok' | 'fail' | 'unknown';
  readonly atMs: number;
  readonly op: number;
  readonly reason?: string;
}

/** A message is durable in its sender's store, and so are its copies for these devices. */
export interface Sent {
  readonly kind: 'sent';
  readonly atMs: number;
  readonly device: string;
  readonly user: string;
  readonly conversation: string;
  readonly innerId: string;
  /** Number of the message by (conversation, sending device), from 1 without gaps. */
  readonly n: number;
  /** Devices that must get it. */
  readonly recipients: readonly string[];
  /** Epoch of its group that it was sealed in; where it is known. */
  readonly epoch?: number;
}

/** A message took another ciphertext's place, for these devices: a channel's is for who is in it by now. */
export interface SealedAnew {
  readonly kind: 'sealedAnew';
  readonly atMs: number;
  readonly device: string;
  readonly innerId: string;
  readonly recipients: readonly string[];
}

/** The own node answered OK for every copy of a message, and the sender's store says so. */
export interface Accepted {
  readonly kind: 'accepted';
  readonly atMs: number;
  readonly device: string;
  readonly innerId: string;
}

/** The sender was told that one copy will not arrive: the typed end that stands for delivery. */
export interface GaveUp {
  readonly kind: 'gaveUp';
  readonly atMs: number;
  /** Sending device. */
  readonly device: string;
  readonly innerId: string;
  /** Receiving device. */
  readonly recipient: string;
  readonly reason: string;
}

/** A message became part of a device's history: written in the client transaction that took it in. */
export interface Stored {
  readonly kind: 'stored';
  readonly atMs: number;
  /** Receiving device and its person. */
  readonly device: string;
  readonly user: string;
  readonly conversation: string;
  readonly innerId: string;
  readonly senderDevice: string;
  readonly n: number;
}

/** The application of a device was given a message. After a crash the last 16 may come again. */
export interface Shown {
  readonly kind: 'shown';
  readonly atMs: number;
  readonly device: string;
  readonly innerId: string;
  /** Who wrote it. */
  readonly sender: string;
}

/** The application of a device left its loop over messages in order: these it has had, durably. */
export interface Had {
  readonly kind: 'had';
  readonly atMs: number;
  readonly device: string;
  readonly innerIds: readonly string[];
}

/** The person of a device wants nothing of somebody, or something again. */
export interface Blocked {
  readonly kind: 'blocked';
  readonly atMs: number;
  readonly device: string;
  readonly user: string;
  readonly isBlocked: boolean;
}

/** What a process holds of one kind, and what it may hold: measured again and again, and at the end. */
export interface Held {
  readonly kind: 'held';
  readonly atMs: number;
  readonly process: string;
  readonly what: string;
  readonly count: number;
  readonly bound: number;
  /** All has drained. */
  readonly isAtRest: boolean;
}

/** A device was told that something is missing, and that is all it will hear of it. */
export interface Missing {
  readonly kind: 'missing';
  readonly atMs: number;
  readonly device: string;
  /** `gap`: rows of its inbox are gone; `undecryptable`: a row can never be opened; `gone`: GONE{n}. */
  readonly what: 'gap' | 'undecryptable' | 'gone';
  readonly reason: string;
  /** Of the message, where it is known: GONE names the sending device and its n. */
  readonly senderDevice?: string;
  readonly conversation?: string;
  readonly n?: number;
}

/** The cursor of a device in its inbox or in a channel, as its own transaction moved it. */
export interface CursorMoved {
  readonly kind: 'cursor';
  readonly atMs: number;
  readonly device: string;
  /** The channel; absent: the inbox. */
  readonly log?: string;
  /** There was none: its part of the channel begins behind `seq`. */
  readonly isFirst?: true;
  readonly storeId: string;
  readonly seq: number;
  /** First seq that this transaction passed: all rows from here to `seq` were taken in or told missing. */
  readonly from: number;
}

/** An OK of a node to one message, as it reached the sender: the row is on its disk, or was before (`isDuplicate`). */
export interface Acknowledged {
  readonly kind: 'acknowledged';
  readonly atMs: number;
  readonly node: string;
  /** Sending device. */
  readonly device: string;
  /** Log that the row is for, here or at another node: the recipient's name, or that of a channel. */
  readonly log: string;
  readonly tag: string;
  readonly isDuplicate: boolean;
}

/** A row that a node holds, or held, in one log; told when it was written, or found at the end. */
export interface Row {
  readonly kind: 'row';
  readonly atMs: number;
  readonly node: string;
  /** Receiving device, or channel. */
  readonly log: string;
  readonly storeId: string;
  readonly seq: number;
  readonly tag: string;
}

/** A hub has an entry of a group's log as accepted on its disk. */
export interface EntryAccepted {
  readonly kind: 'entry';
  readonly atMs: number;
  readonly node: string;
  readonly group: string;
  readonly epoch: number;
  readonly hash: string;
  readonly parent: string;
  /** Hashes of earlier children of its parent that it puts aside. */
  readonly rejects: readonly string[];
  /** How many keep that log: one, or three. */
  readonly hubs: number;
}

/** A device stands at an entry of a group's log, durably: by a commit, or by its Welcome. */
export interface EpochEntered {
  readonly kind: 'epoch';
  readonly atMs: number;
  readonly device: string;
  readonly group: string;
  readonly epoch: number;
  readonly hash: string;
  /** Equal on all members of an epoch (RFC 9420 section 8.7); not known of one that was passed at once. */
  readonly authenticator?: string;
}

/** A device is in a conversation no more, as it knows durably. */
export interface Removed {
  readonly kind: 'removed';
  readonly atMs: number;
  readonly device: string;
  readonly conversation: string;
  /** The first epoch without it. */
  readonly epoch: number;
}

/** A device wants a group changed: durable, and until it ended owed an end. */
export interface Wanted {
  readonly kind: 'wanted';
  readonly atMs: number;
  readonly device: string;
  /** Number of the intent at its device. */
  readonly intent: number;
  readonly group: string;
  readonly what: string;
}
export interface IntentEnded {
  readonly kind: 'settled';
  readonly atMs: number;
  readonly device: string;
  readonly intent: number;
  readonly end: string;
  readonly reason?: string;
  /** Own commits for it that were accepted. */
  readonly commits: number;
}

/** A device wrote down a commit of its own on an entry; the same one again with what it rejects. */
export interface CommitSealed {
  readonly kind: 'sealed';
  readonly atMs: number;
  readonly device: string;
  readonly group: string;
  /** Hash of the entry that it was made on. */
  readonly parent: string;
  readonly commit: string;
}
/** It gave that commit up, and the key that it was sealed with. */
export interface CommitSpent {
  readonly kind: 'spent';
  readonly atMs: number;
  readonly device: string;
  readonly commit: string;
}

/** Something was done to the system. */
export interface Fault {
  readonly kind: 'fault';
  readonly atMs: number;
  /** `kill`, `cut`, `reply-lost`, ... */
  readonly name: string;
  /** Process, or pair of processes. */
  readonly target: string;
  /** Crash point, number of calls, age of a restored copy, ... */
  readonly detail?: string;
}

/** A node goes on with an older copy of its disk. */
export interface Restored {
  readonly kind: 'restored';
  readonly atMs: number;
  readonly node: string;
  /** When that copy was made. */
  readonly copyMs: number;
}

/** From here on no fault happens; everything has to drain. */
export interface Healed {
  readonly kind: 'healed';
  readonly atMs: number;
}

/** The run ended: what one device has left over. Written once for each device. */
export interface Rest {
  readonly kind: 'rest';
  readonly atMs: number;
  readonly device: string;
  /** Copies that its node has not answered. */
  readonly unsent: number;
  /** Rows that wait to be opened. */
  readonly parked: number;
}

export type HistoryLine =
  | Invoke
  | Ended
  | Sent
  | SealedAnew
  | Accepted
  | GaveUp
  | Stored
  | Shown
  | Had
  | Blocked
  | Held
  | Missing
  | CursorMoved
  | Acknowledged
  | Row
  | EntryAccepted
  | EpochEntered
  | Removed
  | Wanted
  | IntentEnded
  | CommitSealed
  | CommitSpent
  | Fault
  | Restored
  | Healed
  | Rest;

export type History = readonly HistoryLine[];

/** One finding of a checker. */
export interface Violation {
  /** Name of the checker: `no-loss`, `no-dup`, ... */
  readonly checker: string;
  readonly text: string;
}

/** The lines of one kind. */
export function linesOf<K extends HistoryLine['kind']>(
  history: History,
  kind: K,
): Extract<HistoryLine, { kind: K }>[] {
  return history.filter((line): line is Extract<HistoryLine, { kind: K }> => line.kind === kind);
}

/** A history as a file of JSON lines. */
export function encodeHistory(history: History): string {
  return history.map((line) => `${JSON.stringify(line)}\n`).join('');
}

/** Reads a file of `encodeHistory`; a last line that a killed writer left unfinished is left out. */
export function readHistory(path: string): History {
  const lines = readFileSync(path, 'utf8').split('\n');
  lines.pop();
  // Written by encodeHistory, or line by line by a process of ours.
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as HistoryLine);
}
