/**
 * `qpc_group`, our GroupContext extension (type 0xF0C0, private use): which conversation a
 * group belongs to, who created it, its name, and the policy that its members judge commits by.
 *
 *   struct {
 *     uint8  version = 1;
 *     opaque conversation_id[32];      // id of the conversation's first group
 *     opaque creator<V>;               // credential identity of the creator
 *     opaque name<V>;                  // UTF-8, at most 256 bytes
 *     uint16 policy_version;
 *   } QpcGroup;
 */
import type { GroupContextExtension } from 'ts-mls';
import { concat } from '../crypto/octets.ts';
import { MlsError } from './errors.ts';
import { credentialIdentity, parseCredentialIdentity } from './identity.ts';
import type { Identity } from './identity.ts';
import { defaultExtensionTypes, makeCustomExtension } from './library.ts';
import { Reader, vector } from './presentation.ts';
import { qpcGroupExtensionType, requiredCapabilities } from './suite.ts';

export const conversationIdLength = 32;
const nameBytesMax = 256;

/** The parsed extension. */
export interface QpcGroupInfo {
  readonly conversationId: Uint8Array;
  readonly creator: Identity;
  readonly name: string;
  /** 1: only the creator's leaf commits. */
  readonly policyVersion: number;
}

/** Encodes the extension's body. Throws MlsError MALFORMED when a field is out of bounds. */
export function encodeQpcGroup(info: QpcGroupInfo): Uint8Array {
  const name = new TextEncoder().encode(info.name);
  if (info.conversationId.length !== conversationIdLength) {
    throw new MlsError(
      'MALFORMED',
      `conversation id: ${info.conversationId.length} bytes, need 32`,
    );
  }
  if (name.length > nameBytesMax) {
    throw new MlsError('MALFORMED', `group name: ${name.length} bytes, at most ${nameBytesMax}`);
  }
  return concat(
    Uint8Array.of(1),
    info.conversationId,
    vector(credentialIdentity(info.creator.userId, info.creator.deviceId)),
    vector(name),
    Uint8Array.of(info.policyVersion >> 8, info.policyVersion & 0xff),
  );
}

/** Parses the extension's body strictly. Throws MlsError MALFORMED. */
export function decodeQpcGroup(bytes: Uint8Array): QpcGroupInfo {
  const reader = new Reader(bytes);
  const version = reader.uint(1);
  if (version !== 1) throw new MlsError('MALFORMED', `qpc_group: version ${version}, know 1`);
  const conversationId = reader.take(conversationIdLength);
  const creator = parseCredentialIdentity(reader.vector(512));
  const nameBytes = reader.vector(nameBytesMax);
  const policyVersion = reader.uint(2);
  reader.end();
  let name: string;
  try {
    name = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(nameBytes);
  } catch (cause) {
    throw new MlsError('MALFORMED', 'group name: not UTF-8', { cause });
  }
  return { conversationId, creator, name, policyVersion };
}

/** The GroupContext extensions of a new group: qpc_group and required_capabilities. */
export function groupContextExtensions(info: QpcGroupInfo): GroupContextExtension[] {
  return [
    {
      extensionType: defaultExtensionTypes.required_capabilities,
      extensionData: requiredCapabilities(),
    },
    makeCustomExtension({
      extensionType: qpcGroupExtensionType,
      extensionData: encodeQpcGroup(info),
    }),
  ];
}

/**
 * The qpc_group of a GroupContext. Throws MlsError MALFORMED unless the extensions are exactly
 * qpc_group and our required_capabilities: external senders, for one, have no place here.
 */
export function qpcGroupOf(extensions: readonly GroupContextExtension[]): QpcGroupInfo {
  const [required, ours, ...more] = extensions.toSorted(
    (a, b) => a.extensionType - b.extensionType,
  );
  const wanted = requiredCapabilities();
  if (
    more.length > 0 ||
    required?.extensionType !== defaultExtensionTypes.required_capabilities ||
    !('extensionTypes' in required.extensionData) ||
    required.extensionData.extensionTypes.join() !== wanted.extensionTypes.join() ||
    required.extensionData.proposalTypes.join() !== wanted.proposalTypes.join() ||
    required.extensionData.credentialTypes.join() !== wanted.credentialTypes.join() ||
    ours?.extensionType !== qpcGroupExtensionType ||
    !(ours.extensionData instanceof Uint8Array)
  ) {
    throw new MlsError('MALFORMED', 'group context: not the extensions of one of our groups');
  }
  return decodeQpcGroup(ours.extensionData);
}
