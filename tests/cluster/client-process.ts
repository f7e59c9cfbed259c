/**
 * Real clients as processes of their own, driven over the child process channel: one request, one
 * reply, plus progress notices. The other end is client-main.ts.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { launchOf, type Launch } from './launch.ts';

const clientMain = fileURLToPath(new URL('./client-main.ts', import.meta.url));

/** What a client process can be asked; each answer is the value its comment names. */
export type ClientRequest =
  /**
   * Opens the store (hex key); makes it when there is none. `peers`: devices of this machine deliver to
   * each other when nodes are away. Answer: null.
   */
  | {
      readonly do: 'open';
      readonly storePath: string;
      readonly storeKeyHex: string;
      readonly peers?: boolean;
    }
  /** Registers and publishes keys. Answer: null. */
  | {
      readonly do: 'register';
      readonly userId: string;
      readonly password: string;
      readonly nodeAddress: string;
    }
  /** Logs in again, for a session that the node knows no more. Answer: null. */
  | { readonly do: 'login'; readonly userId: string; readonly password: string }
  /** Starts the background link and reads messages from then on. Answer: null. */
  | { readonly do: 'start' }
  /** Answer: conversation id (hex). */
  | { readonly do: 'create'; readonly name: string; readonly members: readonly string[] }
  /** Answer: why a conversation with these members was refused, or null when it was made. */
  | { readonly do: 'createRefused'; readonly name: string; readonly members: readonly string[] }
  /** Answer: how a person's keys are verified here, as a ContactView; null for a stranger. */
  | { readonly do: 'contact'; readonly userId: string }
  /** Answer: ids (hex) of all conversations. */
  | { readonly do: 'conversations' }
  /** Answer: how many messages, own and received, its store holds. */
  | { readonly do: 'countMessages' }
  /** Answer: what its store holds, as a Ledger. */
  | { readonly do: 'ledger' }
  /** Sends `count` texts, `everyMs` apart. Answer: null, once the last one is sealed on disk. */
  | {
      readonly do: 'send';
      readonly conversationHex: string;
      readonly prefix: string;
      readonly count: number;
      readonly everyMs: number;
    }
  /** Sends one text. Answer: null, once it is sealed on disk. */
  | { readonly do: 'say'; readonly conversationHex: string; readonly text: string }
  /** Changes a group. Answer: how that ended, as a ChangeEnd. */
  | { readonly do: 'change'; readonly conversationHex: string; readonly change: GroupChange }
  /** Answer: the group as this device sees it, as a GroupView; null before it joined. */
  | { readonly do: 'group'; readonly conversationHex: string }
  /** Waits until every own copy is confirmed by the own node. Answer: null. */
  | { readonly do: 'flush'; readonly timeoutMs: number }
  /** Waits for a session with the own node. Answer: null. */
  | { readonly do: 'online'; readonly timeoutMs: number }
  /** Closes the client and the store, then the process ends. Answer: null. */
  | { readonly do: 'close' };

export type GroupChange =
  | { readonly kind: 'add' | 'remove' | 'admin'; readonly userId: string }
  | { readonly kind: 'rename'; readonly name: string }
  | { readonly kind: 'rekey' };
export interface ChangeEnd {
  /** `done`: it is so, by whoever did it. */
  readonly outcome: 'done' | 'refused';
  /** Of a refusal. */
  readonly reason: string;
}
export interface GroupView {
  readonly name: string;
  readonly members: readonly string[];
  readonly epoch: number;
  readonly authenticatorHex: string;
}
export interface Refusal {
  readonly reason: string;
  readonly message: string;
}
export interface Ledger {
  /** Own texts, with their conversation (hex). */
  readonly said: readonly { readonly text: string; readonly conversationHex: string }[];
  /** Texts of others. */
  readonly heard: readonly string[];
}
export interface ContactView {
  readonly verification: string;
  readonly version: number;
  readonly treeSize: number;
}

export interface ClientReply {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: string;
}
/** Sent by itself. */
export type ClientProgress =
  /** The text of somebody else with its inner id (hex), and how many were read from the client's iterator so far. */
  | {
      readonly received: number;
      readonly text: string;
      readonly from: string;
      readonly idHex: string;
    }
  /** What became of an own text: the own node has all copies, or one was given up. */
  | { readonly fate: MessageFate; readonly text: string }
  /** Where a group stands here, each time that people hear of a change. */
  | {
      readonly epoch: number;
      readonly authenticatorHex: string;
      readonly conversationHex: string;
    }
  /** Hubs or a key log were caught at something, in words. */
  | { readonly alarm: string };
export type MessageFate = 'accepted' | 'sendFailed' | 'bounced' | 'expired';

export class ClientProcess implements AsyncDisposable {
  readonly userId: string;
  /** Messages that the process read so far; restarts at 0 with the process. */
  received = 0;
  /** Called at each progress notice. */
  onProgress: ((progress: ClientProgress) => void) | undefined;
  /** How the process is started; takes effect at the next start. */
  launch: Launch = {};
  readonly stderrLines: string[] = [];
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  #child: ChildProcess | undefined;
  #lastId = 0;

  constructor(userId: string) {
    this.userId = userId;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  start(): void {
    const { command, args, env } = launchOf(this.launch, clientMain);
    const child = spawn(command, args, { stdio: ['ignore', 'inherit', 'pipe', 'ipc'], env });
    this.#child = child;
    this.received = 0;
    child.stderr?.setEncoding('utf8').on('data', (text: string) => this.stderrLines.push(text));
    child.on('message', (message) => this.#onMessage(message as ClientReply | ClientProgress));
    child.once('exit', (code, signal) => {
      if (this.#child === child) this.#child = undefined;
      const why = `${this.userId} ended (${code ?? signal}): ${this.stderrLines.join('').slice(-2000)}`;
      for (const { reject } of this.#waiting.values()) reject(new Error(why));
      this.#waiting.clear();
    });
  }

  /** Resolves with the answer; rejects with the client's error, or when the process ends. */
  async ask(request: ClientRequest): Promise<unknown> {
    const child = this.#child;
    if (child === undefined) throw new Error(`${this.userId} does not run`);
    this.#lastId += 1;
    const reply = Promise.withResolvers<unknown>();
    this.#waiting.set(this.#lastId, reply);
    child.send({ id: this.#lastId, request });
    return reply.promise;
  }

  /** Closes orderly. */
  async close(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    const exited = once(child, 'exit');
    await this.ask({ do: 'close' });
    await exited;
  }

  /** SIGKILL; resolves when the process is gone. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    // What it told before is read first.
    const drained = child.connected ? once(child, 'disconnect') : undefined;
    const exited = once(child, 'exit');
    for (const { promise } of this.#waiting.values()) promise.catch(() => undefined);
    child.kill('SIGKILL');
    await Promise.all([exited, drained]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  #onMessage(message: ClientReply | ClientProgress): void {
    if (!('id' in message)) {
      if ('received' in message) this.received = message.received;
      this.onProgress?.(message);
      return;
    }
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.error === undefined) waiting?.resolve(message.value);
    else waiting?.reject(new Error(`${this.userId}: ${message.error}`));
  }
}
