/**
 * A log client's transport over this protocol's methods: KEYTRANS bytes in, KEYTRANS bytes out, of
 * the own node's log or, through the own node, of another domain's. Nothing is verified here.
 */
import {
  encode,
  monitorMapEntry,
  type LogAnswer,
  type LogTransport,
} from '@quicprochat/kt-log/verify';
import { methods, TransportError } from '@quicprochat/proto';
import type { KtAnswer, KtMonitorRequest } from '@quicprochat/proto/messages';
import type { Caller } from '../dial.ts';

/** `domain` is empty for the log of the node that is asked. */
export function logTransport(caller: Caller, domain: string): LogTransport {
  const optionsOf = (signal: AbortSignal | undefined) => (signal === undefined ? {} : { signal });
  const monitor = async (
    request: KtMonitorRequest['request'],
    signal: AbortSignal | undefined,
  ): Promise<LogAnswer> => {
    const message = { domain, request };
    const { answer } = await caller.call(methods.ktMonitor, message, optionsOf(signal));
    return answerOf(answer);
  };
  return {
    async search(request, { signal }) {
      const message = { domain, request };
      const { answer } = await caller.call(methods.ktSearch, message, optionsOf(signal));
      return answerOf(answer.case === 'found' ? answer.value : undefined);
    },
    async absence(request, { signal }) {
      const message = { domain, request, wantAbsence: true };
      const { answer } = await caller.call(methods.ktSearch, message, optionsOf(signal));
      return answerOf(answer.case === 'absent' ? answer.value : undefined);
    },
    async update(request, { signal }) {
      const { answer } = await caller.call(methods.ktUpdate, { request }, optionsOf(signal));
      return answerOf(answer);
    },
    contactMonitor: (value, { signal }) => monitor({ case: 'contact', value }, signal),
    ownerInit: (value, { signal }) => monitor({ case: 'ownerInit', value }, signal),
    ownerMonitor: (value, { signal }) => monitor({ case: 'ownerMonitor', value }, signal),
    async distinguished(request, { signal }) {
      const message = { domain, request };
      const { answer } = await caller.call(methods.ktDistinguished, message, optionsOf(signal));
      return answerOf(answer);
    },
    async treeHead(size, { signal }) {
      const message = { domain, size: BigInt(size) };
      const { checkpoint } = await caller.call(methods.ktTreeHead, message, optionsOf(signal));
      return checkpoint;
    },
    async credential(_label, { signal }) {
      const request = { case: 'own', value: {} } as const;
      const message = { domain, request };
      const answer = await caller.call(methods.ktCredential, message, optionsOf(signal));
      const { credential: response, checkpoint, entry, inclusion } = answer;
      return { response, checkpoint, entry, inclusion };
    },
    async credentialUpdate({ label, last, entry }, { signal }) {
      const settle = { label, last: BigInt(last), entry: encode(monitorMapEntry, entry) };
      const message = { domain, request: { case: 'settle', value: settle } as const };
      const { credential } = await caller.call(methods.ktCredential, message, optionsOf(signal));
      return credential;
    },
  };
}

function answerOf(answer: KtAnswer | undefined): LogAnswer {
  if (answer === undefined) {
    throw new TransportError('protocol', 'key log: the node answered another question');
  }
  return { response: answer.response, checkpoint: answer.checkpoint };
}
