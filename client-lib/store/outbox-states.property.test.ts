/**
 * The states of copies and messages against a model: OKs, receipts lost, doubled and out of order,
 * notices, repeats, lost stores, transactions that fail and restarts, in any order.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { takeReceipt } from '../receiving/receipts.ts';
import { outboxBounds } from './outbox-bounds.ts';
import { openMemoryStore, openStore } from './sqlite-store.ts';
import type { SendState } from './message-rows.ts';
import type { ReceiptKind } from './outbox-copies.ts';
import type { ClientStore } from './store.ts';

const own = { userId: 'alice@red.example', deviceId: 'device-of-alice' };
const id = (length: number, fill: number): Uint8Array => new Uint8Array(length).fill(fill);
const conversationId = id(32, 9);
/** Devices: two of bob, one of carol (own domain), one more of alice's. */
const devices = [
  { rid: id(32, 1), userId: 'bob@blue.example', domain: 'blue.example' },
  { rid: id(32, 2), userId: 'bob@blue.example', domain: 'blue.example' },
  { rid: id(32, 3), userId: 'carol@red.example', domain: 'red.example' },
  { rid: id(32, 4), userId: own.userId, domain: 'red.example' },
] as const;

/** Few, so that one history does much to each. */
const messagesMax = 2;

type CopyState = 'SEALED' | 'ACCEPTED' | 'RELAYED' | 'DELIVERED' | 'READ' | 'FAILED';
interface Copy {
  readonly device: number;
  state: CopyState;
  storeId: number;
  dueMs: number | undefined;
  resends: number;
  loss: 'failed' | 'bounced' | 'expired' | undefined;
}
interface Message {
  readonly n: number;
  readonly copies: readonly Copy[];
  isDelivered: boolean;
  isRead: boolean;
}

type Action =
  | { readonly do: 'send' }
  | { readonly do: 'ok' | 'refuse' | 'relay'; readonly device: number; readonly message: number }
  | {
      readonly do: 'notice';
      readonly device: number;
      readonly message: number;
      readonly kind: 'bounced' | 'expired';
    }
  | {
      readonly do: 'receipt';
      readonly device: number;
      readonly messages: readonly number[];
      readonly kind: ReceiptKind;
    }
  | { readonly do: 'wait'; readonly hours: number }
  | { readonly do: 'storeChanged' | 'restart' };

const device = fc.nat(devices.length - 1);
const message = fc.nat(messagesMax - 1);
const action: fc.Arbitrary<Action> = fc.oneof(
  fc.record({ do: fc.constant('send' as const) }),
  ...Array.from({ length: 4 }, () =>
    fc.record({ do: fc.constant('ok' as const), device, message }),
  ),
  fc.record({ do: fc.constant('refuse' as const), device, message }),
  ...Array.from({ length: 2 }, () =>
    fc.record({ do: fc.constant('relay' as const), device, message }),
  ),
  fc.record({
    do: fc.constant('notice' as const),
    device,
    message,
    kind: fc.constantFrom('bounced' as const, 'expired' as const),
  }),
  fc.record({
    do: fc.constant('receipt' as const),
    device,
    messages: fc.array(message, { minLength: 1, maxLength: 3 }),
    kind: fc.constantFrom<ReceiptKind>('DELIVERED', 'READ'),
  }),
  fc.record({ do: fc.constant('wait' as const), hours: fc.integer({ min: 1, max: 60 }) }),
  fc.record({ do: fc.constantFrom('storeChanged' as const, 'restart' as const) }),
);
/** Each action, and whether its transaction fails at the end: one in four does. */
const history = fc.array(
  fc.tuple(
    action,
    fc.nat(3).map((n) => n === 0),
  ),
  { minLength: 40, maxLength: 60 },
);

class Failure extends Error {}
const hourMs = 3_600_000;

/** Runs the same history on a store and on the model. */
class Run {
  store: ClientStore;
  readonly #reopen: (store: ClientStore) => ClientStore;
  messages: Message[] = [];
  nowMs = 1_000;
  storeId = 1;

  constructor(store: ClientStore, reopen: (store: ClientStore) => ClientStore) {
    this.store = store;
    this.#reopen = reopen;
  }

  step(what: Action, isFailing: boolean): void {
    if (what.do === 'restart') {
      this.store = this.#reopen(this.store);
      return;
    }
    const before = structuredClone(this.messages);
    const { nowMs, storeId } = this;
    this.#model(what);
    try {
      this.store.transaction(() => {
        this.#apply(what, nowMs);
        if (isFailing) throw new Failure('before the commit');
      });
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      this.messages = before;
      this.storeId = storeId;
    }
    this.check();
  }

  #copies(what: { readonly device: number; readonly message: number }): Copy[] {
    const found = this.messages[what.message]?.copies[what.device];
    return found === undefined ? [] : [found];
  }

  #model(what: Action): void {
    switch (what.do) {
      case 'send':
        if (this.messages.length >= messagesMax) return;
        this.messages.push({
          n: this.messages.length + 1,
          isDelivered: false,
          isRead: false,
          copies: devices.map((_, index) => ({
            device: index,
            state: 'SEALED',
            storeId: 0,
            dueMs: undefined,
            resends: 0,
            loss: undefined,
          })),
        });
        break;
      case 'ok':
        for (const copy of this.#copies(what)) {
          if (copy.state !== 'SEALED') continue;
          copy.state = 'ACCEPTED';
          copy.storeId = this.storeId;
          const waitMs = outboxBounds.resendAfterMs[copy.resends];
          copy.dueMs = waitMs === undefined ? undefined : this.nowMs + waitMs;
        }
        break;
      case 'refuse':
        for (const copy of this.#copies(what)) {
          if (copy.state === 'SEALED') Object.assign(copy, { state: 'FAILED', loss: 'failed' });
        }
        break;
      case 'relay':
        for (const copy of this.#copies(what)) {
          if (copy.state === 'ACCEPTED') copy.state = 'RELAYED';
        }
        break;
      case 'notice':
        for (const copy of this.#copies(what)) {
          if (!['SEALED', 'ACCEPTED', 'RELAYED'].includes(copy.state)) continue;
          Object.assign(copy, { state: 'FAILED', loss: what.kind, dueMs: undefined });
        }
        break;
      case 'receipt':
        for (const index of what.messages) {
          const to = this.messages[index];
          const copy = to?.copies[what.device];
          if (to === undefined || copy === undefined) continue;
          if (copy.state === 'READ' || (copy.state === 'DELIVERED' && what.kind === 'DELIVERED')) {
            continue;
          }
          Object.assign(copy, { state: what.kind, loss: undefined, dueMs: undefined });
          const isOneOfEach = (states: readonly CopyState[]): boolean =>
            ['bob@blue.example', 'carol@red.example'].every((userId) =>
              to.copies.some(
                (one) => devices[one.device]?.userId === userId && states.includes(one.state),
              ),
            );
          if (isOneOfEach(['DELIVERED', 'READ'])) to.isDelivered = true;
          if (isOneOfEach(['READ'])) to.isRead = true;
        }
        break;
      case 'wait':
        this.nowMs += what.hours * hourMs;
        for (const copy of this.messages.flatMap(({ copies }) => copies)) {
          if (copy.dueMs === undefined || copy.dueMs > this.nowMs) continue;
          Object.assign(copy, { state: 'SEALED', dueMs: undefined, resends: copy.resends + 1 });
        }
        break;
      case 'storeChanged':
        this.storeId += 1;
        for (const copy of this.messages.flatMap(({ copies }) => copies)) {
          if (copy.state === 'ACCEPTED') Object.assign(copy, { state: 'SEALED', dueMs: undefined });
        }
        break;
      case 'restart':
        break;
    }
  }

  #apply(what: Action, beforeMs: number): void {
    const { outbox, messages } = this.store;
    const find = (to: { readonly device: number; readonly message: number }) => {
      const target = devices[to.device];
      const mid = id(16, to.message + 1);
      if (target === undefined) return undefined;
      const ridHex = Buffer.from(target.rid).toString('hex');
      for (let after = 0; ;) {
        const entry = outbox.next(ridHex, after);
        if (entry === undefined || Buffer.compare(entry.mid, mid) === 0) return entry;
        after = entry.id;
      }
    };
    switch (what.do) {
      case 'send': {
        const n = messages.history(conversationId, 99).length + 1;
        if (n > messagesMax) return;
        const messageId = messages.add({
          conversationId,
          senderUser: own.userId,
          senderDevice: own.deviceId,
          innerId: id(16, n),
          n,
          lamport: n,
          text: 'text',
          sentMs: beforeMs,
          receivedMs: undefined,
        });
        const about = { kind: 'MESSAGE', groupId: conversationId, epoch: 1n } as const;
        const targets = [...devices];
        outbox.add({ mid: id(16, n), payload: id(5, n), targets, messageId, about }, beforeMs);
        break;
      }
      case 'ok': {
        const entry = find(what);
        if (entry !== undefined) outbox.markAccepted(entry.id, id(8, this.storeId), beforeMs);
        break;
      }
      case 'refuse': {
        const entry = find(what);
        if (entry !== undefined) outbox.markFailed(entry.id, 'REFUSED');
        break;
      }
      case 'relay':
        outbox.markRelayed(id(16, what.message + 1), devices[what.device]?.rid ?? id(32, 0));
        break;
      case 'notice':
        outbox.markLost(
          id(16, what.message + 1),
          devices[what.device]?.rid ?? id(32, 0),
          what.kind,
          'REASON',
        );
        break;
      case 'receipt': {
        const { rid } = devices[what.device] ?? { rid: id(32, 0) };
        const ids = what.messages.map((index) => id(16, index + 1));
        const header = { innerId: id(16, 77), n: 0, lamport: 1, sentMs: 1 };
        const from = { conversationId, rid, nowMs: beforeMs };
        takeReceipt(this.store, own, { ...header, kind: what.kind, ids }, from);
        break;
      }
      case 'wait':
        for (const row of outbox.due(this.nowMs, 99)) outbox.sendAgain(row.id);
        break;
      case 'storeChanged':
        outbox.reopen(id(8, this.storeId));
        break;
      case 'restart':
        break;
    }
  }

  check(): void {
    const { outbox, messages } = this.store;
    const rows = messages.history(conversationId, 99);
    assert.deepEqual(
      rows.map(({ sendState }) => sendState),
      this.messages.map(stateOf),
    );
    // What is not with the node is sent, oldest first per device, and nothing else.
    for (const [index, { rid }] of devices.entries()) {
      const open: number[] = [];
      for (let after = 0; ;) {
        const entry = outbox.next(Buffer.from(rid).toString('hex'), after);
        if (entry === undefined) break;
        open.push(entry.mid[0] ?? 0);
        assert.deepEqual(entry.payload, id(5, entry.mid[0] ?? 0));
        after = entry.id;
      }
      const expected = this.messages.filter(({ copies }) => copies[index]?.state === 'SEALED');
      assert.deepEqual(
        open,
        expected.map(({ n }) => n),
      );
    }
    const dues = this.messages.flatMap(({ copies }) => copies.flatMap(({ dueMs }) => dueMs ?? []));
    assert.equal(outbox.nextDueMs('all'), dues.length === 0 ? undefined : Math.min(...dues));
  }
}

function stateOf({ copies, isDelivered, isRead }: Message): SendState {
  for (const loss of ['failed', 'bounced', 'expired'] as const) {
    if (copies.some((copy) => copy.loss === loss)) return loss;
  }
  if (isRead) return 'read';
  if (isDelivered) return 'delivered';
  if (copies.some(({ state }) => state === 'SEALED')) return 'sealed';
  const remote = copies.filter((copy) => devices[copy.device]?.domain !== 'red.example');
  return remote.every(({ state }) => state !== 'ACCEPTED') ? 'relayed' : 'accepted';
}

describe('copies and messages', () => {
  test('have the state of the model after any history, with transactions that fail', () => {
    fc.assert(
      fc.property(history, (steps) => {
        using store = openMemoryStore();
        const run = new Run(store, (same) => same);
        for (const [what, isFailing] of steps) {
          const time = run.nowMs;
          run.step(what, isFailing && what.do !== 'restart');
          // Time passes also when what happened in it failed.
          run.nowMs = Math.max(time, run.nowMs);
        }
      }),
      { numRuns: 60 },
    );
  });

  test('have it over restarts too', () => {
    const directory = mkdtempSync(join(tmpdir(), 'qpc-outbox-'));
    let files = 0;
    try {
      fc.assert(
        fc.property(history, (steps) => {
          const path = join(directory, `${(files += 1)}.db`);
          const key = id(32, 5);
          const run = new Run(openStore(path, key), (store) => {
            store.close();
            return openStore(path, key);
          });
          try {
            for (const [what, isFailing] of steps) run.step(what, isFailing && what.do !== 'wait');
            run.step({ do: 'restart' }, false);
            run.check();
          } finally {
            run.store.close();
          }
        }),
        { numRuns: 4 },
      );
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });

  test('keep bytes only as long as somebody may need them', () => {
    using store = openMemoryStore();
    const run = new Run(store, (same) => same);
    run.step({ do: 'send' }, false);
    for (const [index] of devices.entries())
      run.step({ do: 'ok', device: index, message: 0 }, false);
    for (const [index] of devices.entries()) {
      run.step({ do: 'receipt', device: index, messages: [0], kind: 'DELIVERED' }, false);
      assert.equal(store.outbox.wasSentTo(1, devices[index]?.rid ?? id(32, 0)), true);
    }
    run.step({ do: 'storeChanged' }, false);
    run.step({ do: 'send' }, false);
    run.step({ do: 'ok', device: 0, message: 1 }, false);
    store.outbox.expire(run.nowMs + outboxBounds.bytesKeptMs + 1);
    // Its bytes are gone: nothing brings it back. The others were never with the node.
    assert.equal(store.outbox.reopen(id(8, 99)), 0);
    assert.equal(store.outbox.openCount(), 3);
    store.outbox.expire(run.nowMs + outboxBounds.rowsKeptMs + 1);
    assert.equal(store.outbox.wasSentTo(1, devices[0].rid), false);
    assert.equal(store.outbox.openCount(), 3);
    assert.equal(store.messages.history(conversationId, 9)[0]?.sendState, 'delivered');
  });
});
