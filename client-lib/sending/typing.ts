/**
 * Typing (docs/protocol/delivery.md, "Typing"): who is writing in a conversation, to devices that listen
 * now. Sealed under a secret of the group's epoch with a random nonce, so that no ratchet moves; never
 * stored, never repeated; in small groups only.
 */
import { methods, parseUserId, QpcError, type Runtime, hex } from '@quicprochat/proto';
import {
  create,
  EphemeralEnvelopeSchema,
  EphemeralSchema,
  fromBinary,
  toBinary,
  type EphemeralEnvelope,
} from '@quicprochat/proto/messages';
import { aesGcmNonceLength, aesGcmOpen, aesGcmSeal } from '../crypto/aes-gcm.ts';
import { channelKeyId } from '../crypto/envelope.ts';
import type { EventBus } from '../events.ts';
import type { Session } from '../session.ts';
import type { Mls, MlsGroup } from '../mls/index.ts';
import { recipientsOf } from './sealing.ts';
import type { ClientStore } from '../store/store.ts';
import type { Batch, Writer } from '../writer.ts';

export const typingLimits = {
  /** Devices of a group, beyond which nobody says that they type. */
  devices: 64,
  /** At most one for a conversation in this time (ms). */
  everyMs: 3_000,
  /** Conversations whose keys are at hand. */
  keys: 512,
  /** How often all conversations are looked through for a key that is not known (ms). */
  searchEveryMs: 1_000,
  /** Nonces that are remembered: a repeat by a node is no typing. */
  nonces: 1_024,
} as const;

export interface TypingParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  readonly writer: Writer;
  readonly mls: Mls;
  readonly rid: Uint8Array;
  /** The session of now, if there is one: typing waits for none. */
  readonly session: () => Session | undefined;
}

/** The key of a conversation's epoch. */
interface EpochKey {
  readonly conversationId: Uint8Array;
  readonly groupId: Uint8Array;
  readonly epoch: bigint;
  readonly key: Uint8Array;
}

export class Typing {
  readonly #parts: TypingParts;
  /** By key id in hex, oldest first. */
  readonly #keys = new Map<string, EpochKey>();
  readonly #sentMs = new Map<string, number>();
  readonly #nonces = new Set<string>();
  #searchedMs = -Infinity;

  constructor(parts: TypingParts) {
    this.#parts = parts;
  }

  /**
   * Tells the other devices of a conversation, at most once in 3 s, if this device is online. Returns
   * whether it was told. Never throws for want of a node: nobody misses it.
   */
  async send(conversationId: Uint8Array): Promise<boolean> {
    const { runtime, writer, rid } = this.#parts;
    const session = this.#parts.session();
    const nowMs = runtime.clock.monotonic();
    const lastMs = this.#sentMs.get(hex(conversationId)) ?? -Infinity;
    if (session === undefined || nowMs - lastMs < typingLimits.everyMs) return false;
    const prepared = await writer.run((batch) => this.#prepare(batch, conversationId));
    if (prepared === undefined) return false;
    remember(this.#sentMs, hex(conversationId), nowMs, typingLimits.keys);
    const { key, targets } = prepared;
    const nonce = runtime.random.bytes(aesGcmNonceLength);
    const content = create(EphemeralSchema, { sender: rid, body: { case: 'typing', value: {} } });
    const plaintext = toBinary(EphemeralSchema, content);
    const ct = aesGcmSeal(key, nonce, new Uint8Array(0), plaintext);
    const envelope = create(EphemeralEnvelopeSchema, { keyId: channelKeyId(key), nonce, ct });
    const payload = toBinary(EphemeralEnvelopeSchema, envelope);
    try {
      await session.call(methods.sendEphemeral, { targets, payload });
      return true;
    } catch (error) {
      const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
      runtime.log.debug('typing not told', { reason });
      return false;
    }
  }

  /** A payload of the ephemeral lane. What does not open is nobody's. */
  async take(payload: Uint8Array): Promise<void> {
    const { writer, events } = this.#parts;
    let envelope: EphemeralEnvelope;
    try {
      envelope = fromBinary(EphemeralEnvelopeSchema, payload);
    } catch {
      return;
    }
    const { keyId, nonce, ct } = envelope;
    if (nonce.length !== aesGcmNonceLength || this.#nonces.has(hex(nonce))) return;
    const found = await this.#find(keyId);
    if (found === undefined) return;
    const sender = open(found.key, nonce, ct);
    if (sender === undefined) return;
    remember(this.#nonces, hex(nonce), undefined, typingLimits.nonces);
    const member = await writer.run(async (batch) =>
      batch
        .group(found.groupId)
        ?.members()
        .find(({ identityPub }) => Buffer.compare(identityPub, sender) === 0),
    );
    if (member === undefined || Buffer.compare(sender, this.#parts.rid) === 0) return;
    const { userId, deviceId } = member;
    if (this.#parts.store.tokens.isBlocked(userId)) return;
    events.emit({ type: 'typing', conversationId: found.conversationId, userId, deviceId });
  }

  async #prepare(
    batch: Batch,
    conversationId: Uint8Array,
  ): Promise<
    | {
        readonly key: Uint8Array;
        readonly targets: { readonly rid: Uint8Array; readonly domain: string }[];
      }
    | undefined
  > {
    const { store } = this.#parts;
    const conversation = store.groups.conversation(conversationId);
    const group = conversation === undefined ? undefined : batch.group(conversation.groupId);
    if (group?.isActive !== true) return undefined;
    const recipients = recipientsOf(group);
    if (recipients.length === 0 || recipients.length >= typingLimits.devices) return undefined;
    const targets = recipients.map(({ identityPub, userId }) => {
      return { rid: identityPub, domain: parseUserId(userId).domain };
    });
    return { key: await this.#keyOf(group), targets };
  }

  #keyOf(group: MlsGroup): Promise<Uint8Array> {
    return this.#parts.mls.exporter(group, 'qpc ephemeral', group.groupId, 32);
  }

  /** The conversation with this key; an epoch that began since is looked for, but not all the time. */
  async #find(keyId: Uint8Array): Promise<EpochKey | undefined> {
    const known = this.#keys.get(hex(keyId));
    if (known !== undefined) return known;
    const nowMs = this.#parts.runtime.clock.monotonic();
    if (nowMs - this.#searchedMs < typingLimits.searchEveryMs) return undefined;
    this.#searchedMs = nowMs;
    await this.#parts.writer.run((batch) => this.#search(batch));
    return this.#keys.get(hex(keyId));
  }

  async #search(batch: Batch): Promise<void> {
    const { store } = this.#parts;
    const known = new Map([...this.#keys.values()].map((one) => [hex(one.groupId), one.epoch]));
    for (const { id, groupId } of store.groups.conversations().slice(-typingLimits.keys)) {
      const group = batch.group(groupId);
      if (group?.isActive !== true || known.get(hex(groupId)) === group.epoch) continue;
      if (recipientsOf(group).length >= typingLimits.devices) continue;
      const key = await this.#keyOf(group);
      const { epoch } = group;
      const entry = { conversationId: id, groupId, epoch, key };
      remember(this.#keys, hex(channelKeyId(key)), entry, typingLimits.keys);
    }
  }
}

/** The sender's device key, if the payload is typing of a member. */
function open(key: Uint8Array, nonce: Uint8Array, ct: Uint8Array): Uint8Array | undefined {
  try {
    const plaintext = aesGcmOpen(key, nonce, new Uint8Array(0), ct);
    const { sender, body } = fromBinary(EphemeralSchema, plaintext);
    return body.case === 'typing' && sender.length === 32 ? Uint8Array.from(sender) : undefined;
  } catch {
    // Not of this group, or sealed by a member and no message: as good as nothing.
    return undefined;
  }
}

/** Puts something in and the oldest out. */
function remember<V>(into: Map<string, V> | Set<string>, key: string, value: V, max: number): void {
  into.delete(key);
  if (into instanceof Map) into.set(key, value);
  else into.add(key);
  for (const oldest of into.keys()) {
    if (into.size <= max) return;
    into.delete(oldest);
  }
}
