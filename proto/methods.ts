/**
 * The method table: one row per RPC. Dispatch, the typed client, limits, rate classes and labels
 * derive from it. Adding an RPC: a message in `qpc/v1`, a row in `methods/`, a handler in `nodes/services`.
 */
import { coreMethods } from './methods/core.ts';
import { accountsMethods } from './methods/accounts.ts';
import { adminMethods } from './methods/admin.ts';
import { deliveryMethods } from './methods/delivery.ts';
import { groupsMethods } from './methods/groups.ts';
import { keysMethods } from './methods/keys.ts';
import { ktMethods } from './methods/kt.ts';
import { federationMethods } from './methods/federation.ts';
import { smallBytes, type Method } from './methods/row.ts';

export const methods = {
  ...coreMethods,
  ...accountsMethods,
  ...deliveryMethods,
  ...groupsMethods,
  ...keysMethods,
  ...ktMethods,
  ...federationMethods,
  ...adminMethods,
} as const;

export type Methods = typeof methods;
export type MethodName = keyof Methods;

const byId = new Map<number, { name: MethodName; row: Method }>(
  (Object.keys(methods) as MethodName[]).map((name) => [
    methods[name].id,
    { name, row: methods[name] },
  ]),
);

/** The row of a method id, with its key in the table. */
export function methodById(
  id: number,
): { readonly name: MethodName; readonly row: Method } | undefined {
  return byId.get(id);
}

/** Bound of a request's payload (bytes), for the transport; unknown methods get 16 KiB. */
export function maxRequestBytes(methodId: number): number {
  return byId.get(methodId)?.row.maxRequestBytes ?? smallBytes;
}

/** Push event types. Events 1 to 6 concern the durable lane, the others are hints. */
export const PushEvent = {
  Message: 1,
  Gap: 2,
  Bounce: 3,
  Expired: 4,
  Delayed: 5,
  Superseded: 6,
  StreamStart: 7,
  KeyChange: 13,
  DeviceChange: 14,
  KeyPackagesLow: 15,
  KeyLogEvidence: 16,
  ServerDraining: 20,
  PeerRestored: 22,
  Typing: 10,
  StoreChanged: 21,
} as const;

/** Row kinds: all that a node sees of content. */
export const RowKind = {
  Envelope: 1,
  GroupControl: 2,
  ChannelUpdate: 3,
  Notice: 4,
  ExpiredReport: 5,
} as const;
