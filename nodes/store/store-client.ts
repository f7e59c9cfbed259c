/** NodeStore over a channel: every method is one operation, by name. */
import type {
  HeldPeerRecord,
  LaneName,
  PeerNote,
  PeerState,
  ProvenMark,
  RelayBatch,
  Reject,
  StoreMark,
} from '@quicprochat/federation';
import type { AuditStore, TreeStore } from '@quicprochat/kt-log';
import type { ChannelPostRow, LogPosition, NewChannel } from './channel-store.ts';
import type {
  InstalledEntries,
  LeaderLog,
  NewGroup,
  OfferedCommit,
  PreparedCommit,
} from './group-store.ts';
import type { WantedMailbox } from './mailbox-store.ts';
import { KeyLogStore, NodeAuditStore } from './log-stores.ts';
import type { OperationArgs, OperationName, OperationResult } from './operations.ts';
import type { StoreReads } from './reads.ts';
import type { ClaimKeyPackages, NewKeyPackage, StoredPrekey } from './key-store.ts';
import type { EnqueueBatch, EnqueueRow } from './message-store.ts';
import type { NodeStore } from './store.ts';

/** Runs operations somewhere. */
export interface StoreChannel {
  readonly storeId: Uint8Array;
  /** Resolves, never rejects, when the store cannot go on. */
  readonly failed: Promise<Error>;
  /** Resolves after the COMMIT. */
  call<N extends OperationName>(name: N, ...args: OperationArgs<N>): Promise<OperationResult<N>>;
  /**
   * Runs a read at once, in this thread. Throws what it throws, StoreFailedError when the file fails
   * (then the store has failed), UnavailableError DRAINING after `close`.
   */
  read<T>(query: (reads: StoreReads) => T): T;
  onRows(listener: (ridHex: string) => void): Disposable;
  /** Ends what was called, then frees the file. Idempotent. */
  close(): Promise<void>;
}

export class StoreClient implements NodeStore {
  readonly keyLog: TreeStore;
  readonly audits: AuditStore;
  readonly #channel: StoreChannel;

  constructor(channel: StoreChannel) {
    this.#channel = channel;
    this.keyLog = new KeyLogStore(channel);
    this.audits = new NodeAuditStore(channel);
  }

  get storeId(): Uint8Array {
    return this.#channel.storeId;
  }
  get failed(): Promise<Error> {
    return this.#channel.failed;
  }
  onRows(listener: (ridHex: string) => void): Disposable {
    return this.#channel.onRows(listener);
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.#channel.close();
  }

  secret(name: string) {
    return this.#channel.call('secret', name);
  }
  putSecret(name: string, value: Uint8Array) {
    return this.#channel.call('putSecret', name, value);
  }

  account(userId: string) {
    return this.#channel.call('account', userId);
  }
  accountByIdentity(identityPub: Uint8Array) {
    return this.#channel.call('accountByIdentity', identityPub);
  }
  devices(userId: string) {
    return this.#channel.call('devices', userId);
  }
  closedLabels() {
    return this.#channel.call('closedLabels');
  }
  accountsOutsideLog() {
    return this.#channel.call('accountsOutsideLog');
  }
  bindSession(
    userId: string,
    identityPub: Uint8Array,
    transportSpki: Uint8Array,
    sessionExpiresMs: number,
  ) {
    return this.#channel.call('bindSession', userId, identityPub, transportSpki, sessionExpiresMs);
  }
  endSession(transportSpki: Uint8Array) {
    return this.#channel.call('endSession', transportSpki);
  }
  sessionByTransportKey(transportSpki: Uint8Array) {
    return this.#channel.call('sessionByTransportKey', transportSpki);
  }

  putRecoveryBundle(userId: string, bundle: Uint8Array) {
    return this.#channel.call('putRecoveryBundle', userId, bundle);
  }
  recoveryBundle(userId: string) {
    return this.#channel.call('recoveryBundle', userId);
  }
  deleteRecoveryBundle(userId: string) {
    return this.#channel.call('deleteRecoveryBundle', userId);
  }

  addKeyPackages(identityPub: Uint8Array, packages: readonly NewKeyPackage[]) {
    return this.#channel.call('addKeyPackages', identityPub, packages);
  }
  keyPackageCounts(identityPub: Uint8Array) {
    return this.#channel.call('keyPackageCounts', identityPub);
  }
  claimKeyPackages(claim: ClaimKeyPackages) {
    return this.#channel.call('claimKeyPackages', claim);
  }
  putPrekey(identityPub: Uint8Array, prekey: StoredPrekey, notAfterMs: number) {
    return this.#channel.call('putPrekey', identityPub, prekey, notAfterMs);
  }
  prekeys(userId: string) {
    return this.#channel.call('prekeys', userId);
  }

  enqueue(row: EnqueueRow) {
    return this.#channel.call('enqueue', row);
  }
  enqueueRemote(peer: string, row: EnqueueRow) {
    return this.#channel.call('enqueueRemote', peer, row);
  }
  enqueueBatch(batch: EnqueueBatch) {
    return this.#channel.call('enqueueBatch', batch);
  }
  setDeliveryTokens(rid: Uint8Array, hashes: readonly Uint8Array[], renewals?: Uint8Array) {
    return this.#channel.call('setDeliveryTokens', rid, hashes, renewals);
  }
  tokenRenewals(rid: Uint8Array, token: Uint8Array) {
    return this.#channel.call('tokenRenewals', rid, token);
  }
  opensInbox(rid: Uint8Array, token: Uint8Array) {
    return this.#channel.call('opensInbox', rid, token);
  }
  relayStatus(rid: Uint8Array, peer: string, mids: readonly Uint8Array[]) {
    return this.#channel.call('relayStatus', rid, peer, mids);
  }
  outboxPeers() {
    return this.#channel.call('outboxPeers');
  }
  deadLetters(after: number, max: number) {
    return this.#channel.call('deadLetters', after, max);
  }
  retryDead(ids: readonly number[]) {
    return this.#channel.call('retryDead', ids);
  }
  dropDead(ids: readonly number[]) {
    return this.#channel.call('dropDead', ids);
  }
  fetch(rid: Uint8Array, after: number, maxRows: number, maxBytes: number) {
    return this.#channel.call('fetch', rid, after, maxRows, maxBytes);
  }
  peek(rid: Uint8Array, after: number, maxRows: number) {
    return this.#channel.call('peek', rid, after, maxRows);
  }
  ack(rid: Uint8Array, upTo: number) {
    return this.#channel.call('ack', rid, upTo);
  }
  grantMailbox(wanted: WantedMailbox) {
    return this.#channel.call('grantMailbox', wanted);
  }
  endMailbox(rid: Uint8Array) {
    return this.#channel.call('endMailbox', rid);
  }
  fetchMailbox(rid: Uint8Array, after: number, maxRows: number, maxBytes: number) {
    return this.#channel.call('fetchMailbox', rid, after, maxRows, maxBytes);
  }
  peekMailbox(rid: Uint8Array, after: number, maxRows: number) {
    return this.#channel.call('peekMailbox', rid, after, maxRows);
  }
  ackMailbox(rid: Uint8Array, storeId: Uint8Array, upTo: number) {
    return this.#channel.call('ackMailbox', rid, storeId, upTo);
  }
  createGroup(group: NewGroup) {
    return this.#channel.call('createGroup', group);
  }
  submitCommit(commit: OfferedCommit) {
    return this.#channel.call('submitCommit', commit);
  }
  holdGroup(group: Uint8Array) {
    return this.#channel.call('holdGroup', group);
  }
  restoredGroups() {
    return this.#channel.call('restoredGroups');
  }
  groupLog(group: Uint8Array, after: Uint8Array, maxEntries: number) {
    return this.#channel.call('groupLog', group, after, maxEntries);
  }
  groupInfo(group: Uint8Array) {
    return this.#channel.call('groupInfo', group);
  }
  entryKey(group: Uint8Array, entry: Uint8Array) {
    return this.#channel.call('entryKey', group, entry);
  }
  childEntries(group: Uint8Array, parent: Uint8Array, after: Uint8Array, maxEntries: number) {
    return this.#channel.call('childEntries', group, parent, after, maxEntries);
  }
  welcomeSlips(
    committer: Uint8Array,
    welcomes: readonly { readonly mid: Uint8Array; readonly rid: Uint8Array }[],
  ) {
    return this.#channel.call('welcomeSlips', committer, welcomes);
  }
  hubState(group: Uint8Array) {
    return this.#channel.call('hubState', group);
  }
  preparedGroups() {
    return this.#channel.call('preparedGroups');
  }
  learnerGroups(after: Uint8Array) {
    return this.#channel.call('learnerGroups', after);
  }
  prepareGroup(group: Omit<NewGroup, 'certified'> & { readonly submit: Uint8Array }) {
    return this.#channel.call('prepareGroup', group);
  }
  prepareCommit(term: number, commit: PreparedCommit, mayWrite: boolean) {
    return this.#channel.call('prepareCommit', term, commit, mayWrite);
  }
  judgeCommit(commit: PreparedCommit) {
    return this.#channel.call('judgeCommit', commit);
  }
  acceptPrepared(term: number, commit: OfferedCommit) {
    return this.#channel.call('acceptPrepared', term, commit);
  }
  adoptLog(log: LeaderLog) {
    return this.#channel.call('adoptLog', log);
  }
  promiseTerm(
    group: Uint8Array,
    term: number,
    own?: { readonly since?: number },
    recovers?: boolean,
  ) {
    return this.#channel.call('promiseTerm', group, term, own, recovers);
  }
  takeLog(
    group: Uint8Array,
    term: number,
    position: number,
    prepared: PreparedCommit | 'keeps' | undefined,
  ) {
    return this.#channel.call('takeLog', group, term, position, prepared);
  }
  installEntries(installed: InstalledEntries) {
    return this.#channel.call('installEntries', installed);
  }
  createChannel(rid: Uint8Array, channel: NewChannel) {
    return this.#channel.call('createChannel', rid, channel);
  }
  postToChannel(post: ChannelPostRow) {
    return this.#channel.call('postToChannel', post);
  }
  applyChannelUpdate(from: string, payload: Uint8Array) {
    return this.#channel.call('applyChannelUpdate', from, payload);
  }
  channelMembers(rid: Uint8Array, cid: Uint8Array) {
    return this.#channel.call('channelMembers', rid, cid);
  }
  fetchChannel(rid: Uint8Array, position: LogPosition, maxRows: number, maxBytes: number) {
    return this.#channel.call('fetchChannel', rid, position, maxRows, maxBytes);
  }
  peekChannel(rid: Uint8Array, position: LogPosition, maxRows: number) {
    return this.#channel.call('peekChannel', rid, position, maxRows);
  }
  ackChannel(rid: Uint8Array, cid: Uint8Array, upTo: number) {
    return this.#channel.call('ackChannel', rid, cid, upTo);
  }
  fetchLogs(rid: Uint8Array, positions: readonly LogPosition[], maxRows: number, maxBytes: number) {
    return this.#channel.call('fetchLogs', rid, positions, maxRows, maxBytes);
  }
  diskState() {
    return this.#channel.call('diskState');
  }
  sweep() {
    return this.#channel.call('sweep');
  }

  outboundStream(peer: string, lane: LaneName) {
    return this.#channel.call('outboundStream', peer, lane);
  }
  readOutbox(peer: string, lane: LaneName, after: number, maxItems: number, maxBytes: number) {
    return this.#channel.call('readOutbox', peer, lane, after, maxItems, maxBytes);
  }
  outboxChainAt(peer: string, lane: LaneName, seq: number) {
    return this.#channel.call('outboxChainAt', peer, lane, seq);
  }
  settleOutbox(
    peer: string,
    lane: LaneName,
    streamId: Uint8Array,
    cursor: number,
    rejects: readonly Reject[],
  ) {
    return this.#channel.call('settleOutbox', peer, lane, streamId, cursor, rejects);
  }
  restartOutbound(peer: string, lane: LaneName, hasLost?: boolean) {
    return this.#channel.call('restartOutbound', peer, lane, hasLost);
  }
  peersWithRows() {
    return this.#channel.call('peersWithRows');
  }
  requeueDue() {
    return this.#channel.call('requeueDue');
  }
  peerState(peer: string) {
    return this.#channel.call('peerState', peer);
  }
  setPeerState(peer: string, state: PeerState) {
    return this.#channel.call('setPeerState', peer, state);
  }

  peerRecords() {
    return this.#channel.call('peerRecords');
  }
  putPeerRecord(held: HeldPeerRecord) {
    return this.#channel.call('putPeerRecord', held);
  }
  setPeerNote(peer: string, note: PeerNote) {
    return this.#channel.call('setPeerNote', peer, note);
  }
  peerNotes() {
    return this.#channel.call('peerNotes');
  }
  bouncePeer(peer: string) {
    return this.#channel.call('bouncePeer', peer);
  }

  storeMark() {
    return this.#channel.call('storeMark');
  }
  renewIfBehind(mark: StoreMark) {
    return this.#channel.call('renewIfBehind', mark);
  }
  peerMark(peer: string) {
    return this.#channel.call('peerMark', peer);
  }
  setPeerMark(peer: string, mark: ProvenMark) {
    return this.#channel.call('setPeerMark', peer, mark);
  }

  inboundStreams(peer: string) {
    return this.#channel.call('inboundStreams', peer);
  }
  applyRelay(peer: string, batch: RelayBatch) {
    return this.#channel.call('applyRelay', peer, batch);
  }
}
