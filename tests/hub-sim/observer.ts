/**
 * Sees every signature that a hub gives and every transaction that it commits, and knows what must hold
 * then: the invariants of tests/model, of production.
 */
import {
  entryHash,
  hasReason,
  isCertifiedBy,
  parseEntry,
  verifyCertified,
  type ParsedEntry,
} from '@quicprochat/proto';
import { fromBinary, GroupControlSchema, type CertifiedEntry } from '@quicprochat/proto/messages';
import type {
  BatchOutcome,
  OperationRequest,
  OperationResult,
} from '@quicprochat/nodes/store/simulation';
import { takenEntries } from '../sim/taken-entries.ts';
import type { SimHub } from './hub.ts';
import type { WireParts } from './wire.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

export class Observer {
  readonly violations: string[] = [];
  /** Is told of each hub that forgot and gives its word to another one. */
  onWord: (domain: string) => void = () => {};
  /** Accepted somewhere, newest last. */
  readonly accepted: ParsedEntry[] = [];
  readonly acceptedBy = new Map<string, Set<string>>();
  readonly counts = {
    ...{ signed: 0, accepted: 0, installed: 0, takenOver: 0, learned: 0 },
    /** Brought back by members, and let go as neither they nor a disk had it. */
    ...{ brought: 0, letGo: 0 },
  };
  /** Hash -> the first term in which it has the word of two. */
  readonly #certified = new Map<string, number>();
  /** Parent -> its certified child. */
  readonly #childOf = new Map<string, string>();
  readonly #signedAsFollower = new Map<string, Map<string, string>>();
  readonly #hubs: readonly string[];
  readonly #keysOf: (domain: string) => readonly Uint8Array[];

  constructor(hubs: readonly string[], keysOf: (domain: string) => readonly Uint8Array[]) {
    this.#hubs = hubs;
    this.#keysOf = keysOf;
  }

  readonly onSigned: WireParts['onSigned'] = ({ by, request, response }) => {
    const { signature } = response;
    if (signature === undefined) return;
    this.counts.signed += 1;
    const { prepared, head, term } = request;
    const bytes = prepared?.entry?.entry;
    const hash = bytes === undefined ? head : entryHash(bytes);
    if (!isCertifiedBy(by, this.#keysOf(by), signature, hash, Number(term))) {
      this.#find(`signature: ${by} signed something else`);
    }
    if (prepared === undefined) return;
    const entry = parseEntry(prepared.entry);
    // A term has one leader, which has on its disk what it sends: with the follower that makes two.
    this.#certify(entry, Number(term));
    const said = this.#signedAsFollower.get(by) ?? new Map<string, string>();
    const other = said.get(hex(entry.entry.parent));
    if (other !== undefined && other !== hex(hash)) this.#find(`unsaid: ${by} signed two children`);
    said.set(hex(entry.entry.parent), hex(hash));
    this.#signedAsFollower.set(by, said);
  };

  onCommit(hub: SimHub, requests: readonly OperationRequest[], outcome: BatchOutcome): void {
    for (const [index, { name, args }] of requests.entries()) {
      const one = outcome.outcomes[index];
      if (one?.isOk !== true) {
        if (one?.error.reason === 'INTERNAL') this.#find(`internal: ${name} ${one.error.stack}`);
        continue;
      }
      if (name === 'acceptPrepared') {
        this.counts.accepted += 1;
        const [, { parsed, certified }] = args;
        this.#accept(hub, certified);
        if (!this.#certified.has(hex(parsed.hash))) {
          this.#find(`uncertified: ${hub.domain} accepted what nobody else has`);
        }
      }
      if (name === 'createGroup' || name === 'submitCommit') {
        // The operations of these names returned an AcceptedCommit.
        const { control, isNew } = one.value as { readonly control: Uint8Array; isNew: boolean };
        const { entry } = fromBinary(GroupControlSchema, control);
        if (isNew && entry !== undefined) {
          this.counts.accepted += 1;
          this.#accept(hub, entry);
        }
      }
      if (name === 'promiseTerm') {
        const [, , own] = args;
        // The operation of this name returned a HubState.
        const { forgot } = one.value as OperationResult<'promiseTerm'>;
        if (own === undefined && forgot?.gaveWord === true) this.onWord(hub.domain);
      }
      if (name === 'takeLog') this.counts.takenOver += 1;
      if (name === 'installEntries') {
        // The operation of this name returned the end of the log.
        const taken = takenEntries(args[0], one.value as OperationResult<'installEntries'>);
        this.counts.installed += taken.length;
        if (args[0].isBrought === true) this.counts.brought += taken.length;
        for (const { certified } of taken) this.#accept(hub, certified);
      }
    }
  }

  /** A Welcome is there if and only if its commit was accepted. `mayLack`: some went with a disk. */
  checkWelcomes(welcomes: ReadonlySet<string>, mayLack: boolean): void {
    const commits = this.accepted.filter(({ epoch }) => epoch > 0).map(({ hash }) => hex(hash));
    const more = [...welcomes].filter((one) => !commits.includes(one));
    if (more.length > 0) this.#find(`welcome: ${more.length} of commits that nobody accepted`);
    const lacking = commits.filter((one) => !welcomes.has(one));
    if (!mayLack && lacking.length > 0) this.#find(`welcome: ${lacking.length} are missing`);
  }

  /** A hub lost what its disk knew. */
  forget(hub: SimHub): void {
    this.counts.learned += 1;
    this.acceptedBy.delete(hub.domain);
  }

  /** What a hub shows must be what was accepted, in one order. `mayBegin`: later, as a new disk got only the end of it. */
  checkLog(hub: SimHub, controls: readonly Uint8Array[], mayBegin = false): void {
    const shown = controls.map((bytes) => fromBinary(GroupControlSchema, bytes).entry);
    const hashes = shown.map((entry) => {
      if (entry === undefined) throw new Error('a control without an entry');
      return hex(this.#verified(hub, entry)?.hash ?? new Uint8Array(0));
    });
    const expected = this.accepted.map(({ hash }) => hex(hash));
    const begin = mayBegin ? Math.max(0, expected.indexOf(hashes[0] ?? '')) : 0;
    if (hashes.join(' ') !== expected.slice(begin, begin + hashes.length).join(' ')) {
      this.#find(`order: ${hub.domain} shows another log`);
    }
    // What stood before that went with it.
    const before = new Set(expected.slice(0, begin));
    const lost = [...(this.acceptedBy.get(hub.domain) ?? [])].filter(
      (one) => !hashes.includes(one) && !before.has(one),
    );
    if (lost.length > 0) this.#find(`lost: ${hub.domain} had accepted ${lost.length} more`);
  }

  /**
   * After a disk was lost: what neither a member nor a disk has may be superseded, and its certificate proves that. A
   * disk has what it accepted, and what is PREPARED on it since the term in which that counted.
   */
  letGo(isHeld: (hash: string, term: number) => boolean): void {
    const chain: (readonly [parent: string, hash: string])[] = [];
    const root = [...this.#childOf.keys()].find((one) => !this.#certified.has(one));
    for (let parent = root; parent !== undefined;) {
      const hash = this.#childOf.get(parent);
      if (hash !== undefined) chain.push([parent, hash]);
      parent = hash;
    }
    for (const [parent, hash] of chain.toReversed()) {
      if (isHeld(hash, this.#certified.get(hash) ?? 0)) return;
      this.counts.letGo += 1;
      this.#childOf.delete(parent);
      this.#certified.delete(hash);
      for (const said of this.#signedAsFollower.values())
        if (said.get(parent) === hash) said.delete(parent);
      const at = this.accepted.findIndex((one) => hex(one.hash) === hash);
      if (at >= 0) this.accepted.splice(at, 1);
    }
  }

  #accept(hub: SimHub, certified: CertifiedEntry): void {
    const entry = this.#verified(hub, certified);
    if (entry === undefined) return;
    this.#certify(entry, Number(certified.term));
    const hash = hex(entry.hash);
    const own = this.acceptedBy.get(hub.domain) ?? new Set<string>();
    own.add(hash);
    this.acceptedBy.set(hub.domain, own);
    if (!this.accepted.some((one) => hex(one.hash) === hash)) this.accepted.push(entry);
  }

  #verified({ domain }: SimHub, certified: CertifiedEntry): ParsedEntry | undefined {
    try {
      return verifyCertified(certified, this.#hubs, this.#keysOf);
    } catch (error) {
      if (!hasReason(error, 'BAD_SIGNATURE')) throw error;
      this.#find(`forged: ${domain} has an entry without the word of two`);
      return undefined;
    }
  }

  #certify({ entry, hash }: ParsedEntry, term: number): void {
    const [parent, child] = [hex(entry.parent), hex(hash)];
    if (!this.#certified.has(child)) this.#certified.set(child, term);
    const other = this.#childOf.get(parent);
    if (other !== undefined && other !== child) this.#find(`fork: two children of ${parent}`);
    this.#childOf.set(parent, child);
  }

  #find(text: string): void {
    this.violations.push(text);
  }
}
