/**
 * One client process under chaos: it sends one text after the other into its conversations, dies and
 * comes back. Its store, once closed, is the witness of what it sent and took in.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { openStore, type ClientStore } from '@quicprochat/client-lib/store';
import { signingKeyFromSeed, hex } from '@quicprochat/proto';
import type { HistoryLine } from '../checkers/index.ts';
import { ClientProcess } from '../cluster/client-process.ts';
import type { Dice } from '../cluster/dice.ts';
import type { NodeProcess } from '../cluster/node-process.ts';
import { groupLines, Witnessed } from './group-testimony.ts';
import type { Recorder } from './recorder.ts';

/** A person waits when so many texts are not answered: a slow machine piles up no backlog. */
const maxOpen = 20;
const registerTries = 5;

/** A conversation as all its members see it. */
export interface Room {
  readonly idHex: string;
  readonly name: string;
  readonly members: readonly Talker[];
}

/** Who is who in a run, to put names into the history instead of keys. */
export interface Directory {
  /** Device name by hex of its address. */
  readonly devices: ReadonlyMap<string, string>;
  /** Rooms by hex of their ids. */
  readonly rooms: ReadonlyMap<string, Room>;
}

export class Talker {
  /** Also the name of its one device. */
  readonly userId: string;
  readonly node: NodeProcess;
  readonly process: ClientProcess;
  /** Texts of others that its application read so far. */
  readonly read = new Set<string>();
  /** Own texts that its node has, as far as it told, and those that were given up. */
  readonly accepted = new Set<string>();
  readonly givenUp = new Set<string>();
  /** What its client told of hubs and key logs that were caught at something. */
  readonly alarms: string[] = [];
  /** Texts of this life that its node has not answered. */
  readonly #open = new Set<string>();
  readonly #witnessed = new Witnessed();
  readonly #listeners = new Set<() => void>();
  readonly #storePath: string;
  readonly #storeKey = new Uint8Array(randomBytes(32));
  readonly #recorder: Recorder;
  #sent = 0;
  #up: PromiseWithResolvers<void> | undefined = Promise.withResolvers();

  constructor(name: string, node: NodeProcess, storePath: string, recorder: Recorder) {
    this.userId = `${name}@${node.domain}`;
    this.node = node;
    this.process = new ClientProcess(this.userId);
    this.#storePath = storePath;
    this.#recorder = recorder;
    this.process.onProgress = (progress) => {
      if ('received' in progress) {
        const { text, idHex: innerId, from: sender } = progress;
        this.read.add(text);
        recorder.now({ kind: 'shown', device: this.userId, innerId, sender });
      } else if ('alarm' in progress) this.alarms.push(`${this.userId}: ${progress.alarm}`);
      else if ('epoch' in progress) {
        const { conversationHex, epoch, authenticatorHex } = progress;
        this.#witnessed.add(conversationHex, epoch, authenticatorHex);
      } else {
        (progress.fate === 'accepted' ? this.accepted : this.givenUp).add(progress.text);
        this.#open.delete(progress.text);
      }
      for (const listener of this.#listeners) listener();
    };
  }

  /** Calls back when its application reads something, or its node took something. */
  listen(listener: () => void): void {
    this.#listeners.add(listener);
  }
  unlisten(listener: () => void): void {
    this.#listeners.delete(listener);
  }

  /** Makes the account. `address` is what it dials; default: its node's own. */
  async register(address = this.node.address): Promise<void> {
    await this.#openStore();
    const password = `password of ${this.userId}`;
    const request = {
      do: 'register',
      userId: this.userId,
      password,
      nodeAddress: address,
    } as const;
    // Safe to repeat; on a loaded machine a handshake may come too late.
    for (let tries = 1; ; tries += 1) {
      try {
        await this.process.ask(request);
        break;
      } catch (error) {
        if (tries >= registerTries) throw error;
        await sleep(1_000);
      }
    }
    await this.process.ask({ do: 'start' });
    this.#up?.resolve();
  }

  /** Makes a conversation; everybody in it must be registered. */
  async createRoom(name: string, others: readonly Talker[]): Promise<Room> {
    const members = others.map(({ userId }) => userId);
    const idHex = String(await this.process.ask({ do: 'create', name, members }));
    return { idHex, name, members: [this, ...others] };
  }

  /** Resolves when the client knows all of its conversations. */
  async joined(rooms: readonly Room[], timeoutMs: number): Promise<void> {
    const wanted = rooms.filter(({ members }) => members.includes(this));
    for (const endMs = performance.now() + timeoutMs; ;) {
      const known = (await this.process.ask({ do: 'conversations' })) as string[];
      if (wanted.every(({ idHex }) => known.includes(idHex))) return;
      if (performance.now() > endMs) throw new Error(`${this.userId} was not let in`);
      await sleep(100);
    }
  }

  /** Sends until `stop`, at random times; while it is dead, it waits to be started. */
  async talk(
    rooms: readonly Room[],
    meanPauseMs: number,
    dice: Dice,
    stop: AbortSignal,
  ): Promise<void> {
    const own = rooms.filter(({ members }) => members.includes(this));
    while (!stop.aborted) {
      await Promise.race([this.#up?.promise, aborted(stop)]);
      const room = own[dice.int(own.length)];
      if (stop.aborted || room === undefined) return;
      const life = this.#up;
      const text = await this.say(room);
      // The answer may have come first, or the kill.
      const isOpen = !this.accepted.has(text) && !this.givenUp.has(text);
      if (isOpen && this.#up === life) this.#open.add(text);
      do {
        await sleep(dice.int(2 * meanPauseMs), undefined, { signal: stop }).catch(() => undefined);
      } while (!stop.aborted && this.#open.size >= maxOpen);
    }
  }

  /** One text. Whether a killed client had sealed it is for its store to say. */
  async say(room: Room): Promise<string> {
    this.#sent += 1;
    const text = `${this.userId} ${this.#sent}`;
    const life = this.#up;
    await this.#recorder.operation(
      this.userId,
      `send ${this.#sent} to ${room.name}`,
      () => this.process.ask({ do: 'say', conversationHex: room.idHex, text }),
      // The kill; anything else is a finding.
      () => this.#up !== life,
    );
    return text;
  }

  /** A person does this when the node does not know the session any more. */
  async login(): Promise<void> {
    await this.process.ask({
      do: 'login',
      userId: this.userId,
      password: `password of ${this.userId}`,
    });
  }

  /** SIGKILL. */
  async kill(): Promise<void> {
    this.#up = Promise.withResolvers();
    this.#open.clear();
    this.#recorder.fault('kill', this.userId);
    await this.process.kill();
  }

  /** Starts a killed client again. */
  async restart(): Promise<void> {
    this.#recorder.fault('start', this.userId);
    await this.#openStore();
    await this.process.ask({ do: 'start' });
    this.#up?.resolve();
  }

  /** Closes orderly; from then on the store can be read. */
  async close(): Promise<void> {
    await this.process.close();
  }

  /** To look into once it is closed; to be closed by the caller. */
  store(): ClientStore {
    return openStore(this.#storePath, this.#storeKey);
  }

  /** Address of its device (hex), from the closed store. */
  deviceHex(): string {
    using store = this.store();
    const seed = store.account.get()?.identitySeed;
    if (seed === undefined) throw new Error(`${this.userId} has no account`);
    return hex(signingKeyFromSeed(seed).publicKey);
  }

  /** What the closed store holds, as lines of the history, in its own order. */
  testimony({ devices, rooms }: Directory): HistoryLine[] {
    using store = this.store();
    const device = this.userId;
    const lines: HistoryLine[] = [];
    const innerIds = new Map<number, string>();
    const messages = store.groups
      .conversations()
      .flatMap(({ id }) => store.messages.history(id, Number.MAX_SAFE_INTEGER))
      .toSorted((a, b) => a.id - b.id);
    for (const message of messages) {
      const { n, senderUser: user, receivedMs, acceptedMs } = message;
      const room = rooms.get(hex(message.conversationId));
      const what = {
        conversation: room?.name ?? hex(message.conversationId),
        innerId: hex(message.innerId),
        n,
      };
      if (receivedMs !== undefined) {
        lines.push({
          kind: 'stored',
          atMs: receivedMs,
          device,
          user: device,
          senderDevice: user,
          ...what,
        });
        continue;
      }
      innerIds.set(message.id, what.innerId);
      const recipients = room?.members.filter((other) => other !== this) ?? [];
      lines.push({
        kind: 'sent',
        atMs: message.sentMs,
        device,
        user,
        recipients: recipients.map(({ userId }) => userId),
        ...what,
      });
      if (acceptedMs !== undefined) {
        lines.push({ kind: 'accepted', atMs: acceptedMs, device, innerId: what.innerId });
      }
    }
    const atMs = Date.now();
    for (const { messageId, rid, failure } of store.outbox.failures()) {
      const innerId = messageId === undefined ? undefined : innerIds.get(messageId);
      const recipient = devices.get(hex(rid)) ?? hex(rid);
      if (innerId === undefined) continue;
      lines.push({ kind: 'gaveUp', atMs, device, innerId, recipient, reason: failure });
    }
    for (const { from, to, atMs: gapMs } of store.inbox.gaps()) {
      const reason = `rows ${from} to ${to}`;
      lines.push({ kind: 'missing', atMs: gapMs, device, what: 'gap', reason });
    }
    for (const { reason } of store.inbox.undecryptable()) {
      lines.push({ kind: 'missing', atMs, device, what: 'undecryptable', reason });
    }
    const [unsent, parked] = [store.outbox.openCount(), store.inbox.parked().length];
    lines.push(...groupLines(store, device, atMs, this.#witnessed));
    return [...lines, { kind: 'rest', atMs, device, unsent, parked }];
  }

  async #openStore(): Promise<void> {
    this.process.start();
    await this.process.ask({
      do: 'open',
      storePath: this.#storePath,
      storeKeyHex: hex(this.#storeKey),
    });
  }
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
