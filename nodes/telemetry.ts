/**
 * The node's log: one JSON object per line on standard output. Fields are flat values chosen by
 * the caller; payloads, passwords, keys and user names never are.
 */
import { channel } from 'node:diagnostics_channel';
import { pino } from 'pino';
import type { CallReport, Log } from '@quicprochat/proto';
import type { NodeConfig } from './config.ts';

/** A Log over pino. Lines are written synchronously, so that the last one before an exit is there. */
export function createLog(level: NodeConfig['logLevel']): Log {
  const logger = pino(
    { level, base: null, formatters: { level: (label) => ({ level: label }) } },
    pino.destination({ dest: 1, sync: true }),
  );
  return {
    debug: (event, fields = {}) => logger.debug(fields, event),
    info: (event, fields = {}) => logger.info(fields, event),
    warn: (event, fields = {}) => logger.warn(fields, event),
    error: (event, fields = {}) => logger.error(fields, event),
  };
}

/** Every finished call of a node in this process, as a CallReport; while nobody subscribes it costs nothing. */
const calls = channel('quicprochat.call');

/** One finished call, at level debug. */
export function logCall(log: Log, report: CallReport): void {
  calls.publish(report);
  log.debug('call', {
    method: report.method,
    caller: report.callerClass,
    status: report.status,
    ...(report.reason === undefined ? {} : { reason: report.reason }),
    durationMs: Math.round(report.durationMs * 100) / 100,
    requestBytes: report.requestBytes,
    responseBytes: report.responseBytes,
  });
}
