/**
 * Welcomes as they travel beside an accepted commit (docs/protocol/group-log.md, "Rows"): for one device a hybrid
 * envelope with all of it, for several one envelope under a fresh key, and that key in a hybrid envelope for
 * each. For a Welcome grows with the group, and all whom a commit adds get the same one.
 */
import { groupLogLimits, PayloadTooLargeError, sameBytes, type Random } from '@quicprochat/proto';
import type { GroupControl } from '@quicprochat/proto/messages';
import {
  channelKeyId,
  EnvelopeError,
  openChannel,
  openHybrid,
  parseEnvelope,
  sealChannel,
  type SealedContent,
} from '../../crypto/envelope.ts';
import { hybridCopies, type Recipient } from '../../sending/fan-out.ts';
import { never } from '../../receiving/row-verdict.ts';

const keyBytes = 32;
/** As many as a commit adds. */
const keysMax = 64;

export interface SealedWelcomes<R extends Recipient> {
  /** Empty: each has its own. */
  readonly sharedWelcome: Uint8Array;
  readonly welcomes: readonly {
    readonly mid: Uint8Array;
    readonly welcome: Uint8Array;
    readonly invitee: R;
  }[];
}

/** Throws PrekeyError, PayloadTooLargeError when it does not fit into one row: the commit has to add fewer. */
export function sealWelcomes<R extends Recipient>(
  content: SealedContent,
  invitees: readonly R[],
  prekeyOf: (rid: Uint8Array) => Uint8Array | undefined,
  random: Random,
): SealedWelcomes<R> {
  const sealFor = (what: SealedContent, mid: Uint8Array) =>
    invitees.flatMap((invitee) =>
      hybridCopies(what, [invitee], prekeyOf, random, mid).map(({ payload }) => ({
        ...{ mid, invitee },
        welcome: payload,
      })),
    );
  const mid = random.bytes(16);
  if (invitees.length < 2) {
    return { sharedWelcome: new Uint8Array(0), welcomes: sealFor(content, mid) };
  }
  const key = random.bytes(keyBytes);
  const sharedWelcome = sealChannel({ content, key, random });
  const welcomes = sealFor({ kind: 'welcomeKey', bytes: key }, mid);
  key.fill(0);
  const bytes = welcomes.reduce((sum, { welcome }) => sum + welcome.length, sharedWelcome.length);
  if (bytes > groupLogLimits.envelopeBytes)
    throw new PayloadTooLargeError('a Welcome with its keys');
  return { sharedWelcome, welcomes };
}

/**
 * Opens either kind. `seedOf`: of a prekey of this device, by its id. Throws EnvelopeError UNKNOWN_KEY when it
 * is for no prekey that is here, BAD_ENVELOPE; Unopened MALFORMED for what no hub takes.
 */
export function openWelcome(
  { welcome, welcomeKeys }: Pick<GroupControl, 'welcome' | 'welcomeKeys'>,
  mid: Uint8Array,
  rid: Uint8Array,
  seedOf: (keyId: Uint8Array) => Uint8Array | undefined,
): SealedContent {
  const sealed = parseEnvelope(welcome);
  let content: SealedContent;
  if (welcomeKeys.length === 0) {
    if (sealed.mode !== 'hybrid') throw never('MALFORMED');
    content = openHybrid(sealed, seedOf, rid, mid);
  } else {
    if (sealed.mode !== 'channel' || welcomeKeys.length > keysMax) throw never('MALFORMED');
    const key = openKey(welcomeKeys, mid, rid, seedOf);
    content = openChannel(sealed, (id) => (sameBytes(id, channelKeyId(key)) ? key : undefined));
    key.fill(0);
  }
  if (content.kind !== 'welcome') throw never('MALFORMED');
  return content;
}

/** Of the envelopes the one for this device, whatever stands in the others. */
function openKey(
  envelopes: readonly Uint8Array[],
  mid: Uint8Array,
  rid: Uint8Array,
  seedOf: (keyId: Uint8Array) => Uint8Array | undefined,
): Uint8Array {
  let refusal: EnvelopeError | undefined;
  for (const envelope of envelopes) {
    try {
      const sealed = parseEnvelope(envelope);
      if (sealed.mode !== 'hybrid') continue;
      const { kind, bytes } = openHybrid(sealed, seedOf, rid, mid);
      if (kind === 'welcomeKey') return bytes;
    } catch (error) {
      if (!(error instanceof EnvelopeError)) throw error;
      // That one is sealed to a key of this device says more than that others are not.
      if (refusal === undefined || error.reason === 'BAD_ENVELOPE') refusal = error;
    }
  }
  throw refusal ?? never('MALFORMED');
}
