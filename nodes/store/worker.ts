/**
 * The store's thread. All batches that wait when it looks are one transaction; the replies leave
 * after its COMMIT, the checkpoint comes after the replies. When the store fails it says so once
 * and does nothing more: no close, no second sync.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { InternalError, QpcError, systemRandom } from '@quicprochat/proto';
import { StoreCore } from './core.ts';
import {
  errorToMessage,
  pack,
  type FromWorker,
  type OutcomeMessage,
  type ToWorker,
  type WorkerStart,
} from './messages.ts';
import type { OperationRequest } from './operations.ts';

/** Requests of one transaction, beyond which waiting batches are left for the next. */
const requestsPerCommit = 1_024;

const port = parentPort;
if (port === null) throw new Error('the store worker runs as a worker thread only');

function post(message: FromWorker, buffers: ArrayBuffer[] = []): void {
  port?.postMessage(message, buffers);
}

function openCore(): StoreCore {
  // Written by openNodeStore in client.ts.
  const { path, key, limits } = workerData as WorkerStart;
  try {
    return new StoreCore({ path, key, limits, random: systemRandom });
  } finally {
    key.fill(0);
  }
}

function start(): void {
  let core: StoreCore;
  try {
    core = openCore();
  } catch (error) {
    postFailure(error);
    return;
  }
  let hasFailed = false;
  // A failed store keeps its listener: a thread that ends closes its database, and that syncs.
  port?.on('message', (message: ToWorker) => {
    if (hasFailed) return;
    try {
      if (message.type === 'close') close(core);
      else runBatches(core, message);
    } catch (error) {
      hasFailed = true;
      postFailure(error);
    }
  });
  post({ type: 'open', storeId: core.storeId });
}

function runBatches(core: StoreCore, first: ToWorker & { type: 'batch' }): void {
  const requests: OperationRequest[] = [...first.requests];
  let { nowMs } = first;
  let batches = 1;
  let isClosing = false;
  while (requests.length < requestsPerCommit) {
    const waiting = port === null ? undefined : receiveMessageOnPort(port);
    if (waiting === undefined) break;
    // Both ends of the port are ours.
    const message = waiting.message as ToWorker;
    if (message.type === 'close') {
      isClosing = true;
      break;
    }
    requests.push(...message.requests);
    nowMs = Math.max(nowMs, message.nowMs);
    batches += 1;
  }
  const { outcomes, woken } = core.run(nowMs, requests);
  const buffers: ArrayBuffer[] = [];
  const messages = outcomes.map((outcome): OutcomeMessage => {
    if (!outcome.isOk) return { isOk: false, error: errorToMessage(outcome.error) };
    const { value, buffer } = pack(outcome.value);
    if (buffer.byteLength > 0) buffers.push(buffer);
    return { isOk: true, value };
  });
  post({ type: 'done', batches, outcomes: messages, woken, storeId: core.storeId }, buffers);
  core.checkpointIfDue();
  if (isClosing) close(core);
}

function close(core: StoreCore): void {
  core[Symbol.dispose]();
  post({ type: 'closed' });
  port?.close();
}

function postFailure(error: unknown): void {
  const typed =
    error instanceof QpcError ? error : new InternalError(String(error), { cause: error });
  post({ type: 'failed', error: errorToMessage(typed) });
}

start();
