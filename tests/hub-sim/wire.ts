/**
 * What lies between simulated hubs: each call is encoded and decoded as between nodes, takes time, may get
 * lost on either way or arrive twice, and reaches nobody who is dead or cut off.
 */
import {
  checkFields,
  errorFromWire,
  errorToWire,
  methods,
  silentLog,
  UnavailableError,
  type Method,
} from '@quicprochat/proto';
import {
  create,
  ErrorSchema,
  fromBinary,
  toBinary,
  type MessageInitShape,
  type MessageShape,
} from '@quicprochat/proto/messages';
import type { HubPeers, HubSet } from '@quicprochat/nodes/hubs';
import { never, type Process, type SimRandom } from '../sim/process.ts';
import type { Scheduler } from '../sim/scheduler.ts';

type Schema = Method['request'];

/** As federation's proxy waits (ms). */
const patienceMs = 10_000;
/** How late a request comes that lay somewhere: longer than hubs that forgot wait (ms). */
const lateMs = 300_000;

/** One end of calls. */
export interface Party {
  readonly domain: string;
  /** Undefined while it is down. */
  readonly life: { readonly process: Process; readonly set: HubSet } | undefined;
  /** GroupLog, which is the service's and not the set's. */
  groupLog(request: MessageShape<typeof methods.groupLog.request>): Promise<Log>;
}
type Log = MessageInitShape<typeof methods.groupLog.response>;

/** Shares of messages that get lost, and of requests that arrive twice, or once more much later. */
export interface WireFaults {
  lost: number;
  twice: number;
  late?: number;
}

export interface WireParts {
  readonly scheduler: Scheduler;
  readonly random: SimRandom;
  readonly partyOf: (domain: string) => Party | undefined;
  readonly faults: WireFaults;
  readonly onSigned: (signed: {
    readonly by: string;
    readonly request: MessageShape<typeof methods.fedHubReplicate.request>;
    readonly response: MessageShape<typeof methods.fedHubReplicate.response>;
  }) => void;
}

export class Wire {
  readonly #parts: WireParts;
  readonly #cut = new Set<string>();

  constructor(parts: WireParts) {
    this.#parts = parts;
  }

  cut(from: string, to: string): void {
    this.#cut.add(`${from} ${to}`);
  }
  healAll(): void {
    this.#cut.clear();
  }

  /** The other hubs, as one of them sees them in one of its lives. */
  peersOf(from: string, process: Process): HubPeers {
    const { onSigned } = this.#parts;
    const { fedHubSubmit, fedHubLog, fedHubReplicate, fedHubPromise, fedHubInstall } = methods;
    const ask = <I extends Schema, O extends Schema>(
      to: string,
      method: Method<I, O>,
      request: MessageInitShape<I>,
      work: (party: Party, set: HubSet, request: MessageShape<I>) => Promise<MessageInitShape<O>>,
    ): Promise<MessageShape<O>> => this.#call({ from, to, process }, method, request, work);
    return {
      submit: async (to, submit, { fromHub }) => {
        const answer = await ask(
          to,
          fedHubSubmit,
          { submit, fromHub },
          async (_party, set, one) => {
            if (one.submit === undefined) throw new Error('a submit without a submit');
            const entry = await set.submit(one.submit, { fromHub: one.fromHub });
            return { submitted: entry === undefined ? {} : { entry } };
          },
        );
        if (answer.submitted === undefined) throw new Error('an answer without content');
        return answer.submitted;
      },
      log: async (to, log) => {
        const answer = await ask(to, fedHubLog, { log }, async (party, _set, one) => {
          if (one.log === undefined) throw new Error('a log without a log');
          return { found: await party.groupLog(one.log) };
        });
        if (answer.found === undefined) throw new Error('an answer without content');
        return answer.found;
      },
      replicate: (to, request) =>
        ask(to, fedHubReplicate, request, async (party, set, one) => {
          const response = create(fedHubReplicate.response, await set.replicate(from, one));
          onSigned({ by: party.domain, request: one, response });
          return response;
        }),
      // Each call finds out for itself here.
      doubt: () => undefined,
      promise: (to, request) =>
        ask(to, fedHubPromise, request, (_party, set, one) => set.promise(from, one)),
      install: (to, request) =>
        ask(to, fedHubInstall, request, (_party, set, one) => set.install(from, one)),
    };
  }

  async #call<I extends Schema, O extends Schema>(
    { from, to, process }: { from: string; to: string; process: Process },
    method: Method<I, O>,
    init: MessageInitShape<I>,
    work: (party: Party, set: HubSet, request: MessageShape<I>) => Promise<MessageInitShape<O>>,
  ): Promise<MessageShape<O>> {
    const { scheduler, random, faults } = this.#parts;
    if (process.isDead) return never();
    const bytes = toBinary(method.request, create(method.request, init));
    if (bytes.length > method.maxRequestBytes) throw new Error(`${method.name}: too large`);
    const reply = Promise.withResolvers<MessageShape<O>>();
    const giveUp = scheduler.after(patienceMs, () =>
      reply.reject(new UnavailableError('PEER_UNREACHABLE', `${to} did not answer`)),
    );
    const arrive = async (): Promise<void> => {
      const party = this.#parts.partyOf(to);
      const life = party?.life;
      if (this.#isCut(from, to) || party === undefined || life === undefined) {
        // Half of those that are not there say so at once.
        if (random.chance(0.5)) this.#after(process, () => reply.reject(unreachable(to)));
        return;
      }
      let answer: () => void;
      try {
        const request = fromBinary(method.request, bytes);
        checkFields(request, method.rules);
        const response = create(method.response, await work(party, life.set, request));
        const back = toBinary(method.response, response);
        if (back.length > method.maxResponseBytes) throw new Error(`${method.name}: too large`);
        answer = () => reply.resolve(fromBinary(method.response, back));
      } catch (error) {
        const [status, text] = errorToWire(error, { log: silentLog, random, method: method.name });
        answer = () => reply.reject(errorFromWire(status, fromBinary(ErrorSchema, text)));
      }
      if (life.process.isDead || random.chance(faults.lost) || this.#isCut(to, from)) return;
      this.#after(process, answer);
    };
    const copies = random.chance(faults.twice) ? 2 : 1;
    for (let copy = 0; copy < copies; copy += 1) {
      if (random.chance(faults.lost)) continue;
      scheduler.after(random.between(0.5, 40) * (1 + copy * 20), () => void arrive());
    }
    if (faults.late !== undefined && random.chance(faults.late))
      scheduler.after(random.between(1_000, lateMs), () => void arrive());
    try {
      const answer = await reply.promise;
      return process.isDead ? await never() : answer;
    } catch (error) {
      if (process.isDead) return await never();
      throw error;
    } finally {
      giveUp.cancel();
    }
  }

  #isCut(from: string, to: string): boolean {
    return this.#cut.has(`${from} ${to}`);
  }

  #after(process: Process, work: () => void): void {
    const { scheduler, random } = this.#parts;
    scheduler.after(random.between(0.5, 40), () => void (process.isDead || work()));
  }
}

function unreachable(to: string): UnavailableError {
  return new UnavailableError('PEER_UNREACHABLE', `${to} cannot be reached now`);
}
