/**
 * A client's dealings with credentials: its own, kept fresh to be handed out, and those of others,
 * checked against what it knows of the log (protocol section 14). Browser-safe.
 */
import { FailedPreconditionError } from '@quicprochat/proto/status';
import type { Changes, ClientCore } from './client-core.ts';
import type { CallOptions, LogTransport } from './client-transport.ts';
import type { PendingCredential } from './credential.ts';
import { credential, settleByEntry, verifyCredentialUpdate } from './credential.ts';
import { sameBytes } from './hash.ts';
import { decode } from './presentation.ts';
import { verify } from './verification-error.ts';
import { greatestKnown } from './verify-owner.ts';
import type { OpenedCredential, StrangerRules } from './wrapped-credential.ts';
import { openWrapped, wrapCredential, wrappedCredential } from './wrapped-credential.ts';

type CredentialTransport = Pick<LogTransport, 'credential' | 'distinguished' | 'treeHead'>;

export class ClientCredentials {
  readonly #core: ClientCore;
  readonly #distinguished: (
    transport: Pick<LogTransport, 'distinguished' | 'treeHead'>,
    call: CallOptions,
  ) => Promise<unknown>;

  constructor(
    core: ClientCore,
    distinguished: (
      transport: Pick<LogTransport, 'distinguished' | 'treeHead'>,
      call: CallOptions,
    ) => Promise<unknown>,
  ) {
    this.#core = core;
    this.#distinguished = distinguished;
  }

  /** The newest wrapped credential of one's own label, to be handed out; undefined: none yet. */
  own(label: Uint8Array): Uint8Array | undefined {
    return this.#core.credential(label);
  }

  /**
   * Gets a new credential of a label of one's own, checks it as its receivers will, and keeps it.
   * Undefined, and nothing kept: it is of another version than the greatest one known. Either there
   * are news, which the owner's round that is due then brings, or the log was asked at a head from
   * before the newest version, as it may be for seconds. Throws VerificationError.
   */
  refresh(
    transport: CredentialTransport,
    label: Uint8Array,
    call: CallOptions = {},
  ): Promise<Uint8Array | undefined> {
    const core = this.#core;
    return core.inTurn(async () => {
      const record = core.owner(label);
      const greatest = record && greatestKnown(record.owner);
      if (greatest === undefined) {
        throw new FailedPreconditionError('BAD_CURSOR', 'log client: no version of its own yet');
      }
      const wrapped = wrapCredential(await transport.credential(label, call));
      // It may stand on an entry that became distinguished since the last look.
      const { position } = decode(
        credential(core.log.config.mode),
        decode(wrappedCredential, wrapped).credential,
      );
      const isKnown = core.distinguished().some((one) => one.position === position);
      if (!isKnown) await this.#distinguished(transport, call);
      const opened = this.open(wrapped);
      verify(sameBytes(opened.label, label), 'CHAIN', 'credential label', 'the one asked for');
      const changes: Changes = new Map();
      if (opened.version === greatest) core.putCredential(changes, label, wrapped);
      else if (opened.version > greatest) core.putDuty(changes, 'owned', label, core.now());
      core.save(changes);
      return opened.version === greatest ? wrapped : undefined;
    });
  }

  /**
   * The CredentialUpdate that settles the provisional credential of one's own which was handed out,
   * for its receivers; undefined: it needs none. Throws FailedPrecondition BAD_CURSOR from the log
   * while it is too early, VerificationError for an update that settles nothing.
   */
  settlement(
    transport: Pick<LogTransport, 'credentialUpdate' | 'distinguished' | 'treeHead'>,
    label: Uint8Array,
    call: CallOptions = {},
  ): Promise<Uint8Array | undefined> {
    return this.#core.inTurn(async () => {
      const wrapped = this.own(label);
      const pending = wrapped && this.open(wrapped).pending;
      if (pending === undefined) return undefined;
      const { version, terminal: position, view } = pending;
      const request = { label, last: view.size, entry: { position, version } };
      const update = await transport.credentialUpdate(request, call);
      await this.#distinguished(transport, call);
      verifyCredentialUpdate(this.#core.log, pending, this.#core.distinguished(), update);
      return update;
    });
  }

  /**
   * Checks somebody's credential offline. Changes nothing, asks nobody. Whether its version is behind
   * the one that is known here is for the caller to compare. Throws as openWrapped.
   */
  open(wrapped: Uint8Array, stranger?: StrangerRules): OpenedCredential {
    const core = this.#core;
    const { identity } = core.options;
    const opened = openWrapped(
      core.log,
      identity,
      core.distinguished(),
      stranger,
      wrapped,
      core.now(),
    );
    const { label, version, value } = opened;
    const known = core.label(label)?.greatest;
    const isSame = known?.version !== version || sameBytes(known.value, value);
    verify(isSame, 'CHAIN', `value of version ${version}`, 'the one that was verified before');
    const previous = known !== undefined && known.version < version ? known : undefined;
    core.checkValue({ label, version, value, previous });
    return opened;
  }

  /**
   * Settles a provisional credential by the distinguished entries known now, or by an update from
   * its sender. False: too early. Throws VerificationError, FORK for evidence against the log.
   */
  settle(pending: PendingCredential, update?: Uint8Array): boolean {
    const known = this.#core.distinguished();
    if (settleByEntry(pending, known)) return true;
    if (update === undefined) return false;
    verifyCredentialUpdate(this.#core.log, pending, known, update);
    return true;
  }
}
