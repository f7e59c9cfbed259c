/** The devices of the bench `idle-devices`, in one process: they connect, say Hello, and stay. */
import { call, methods } from '@quicprochat/proto';
import { loadIdentity, type Connection } from '@quicprochat/proto/transport';
import { dialAs } from './devices.ts';
import type { IdleDevice } from './idle-node.ts';
import { answerParent } from './peer-process.ts';

export interface CrowdJob {
  readonly address: string;
  readonly devices: readonly IdleDevice[];
  readonly isSubscribing: boolean;
}

const atOnce = 20;
/** They stay connected as long as this process lives. */
const connections: Connection[] = [];

answerParent(async ({ address, devices, isSubscribing }: CrowdJob) => {
  const enter = async ({ certificatePem, privateKeyPem }: IdleDevice): Promise<void> => {
    const connection = await dialAs(address, loadIdentity(certificatePem, privateKeyPem));
    await call(connection, methods.hello, { versionMin: 1, versionMax: 1, agent: 'bench' });
    if (isSubscribing) {
      connection.onPushStream(async (frames) => {
        for await (const _frame of frames);
      });
      await call(connection, methods.subscribe, { cursors: [{ log: {}, after: 0n }] });
    }
    connections.push(connection);
  };
  for (let from = 0; from < devices.length; from += atOnce) {
    await Promise.all(devices.slice(from, from + atOnce).map(enter));
  }
  return connections.length;
});
