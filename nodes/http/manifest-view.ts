/**
 * What the look-up page shows of a value of the log: a few fields of a SignedManifest
 * (proto/qpc/v1/manifest.proto), read without the protobuf library, which is no page's weight.
 * Browser-safe.
 */

export interface ManifestView {
  /** The signed bytes of the manifest, and the account key's signature over them. */
  readonly manifest: Uint8Array;
  readonly signature: Uint8Array;
  readonly userId: string;
  readonly seq: number;
  readonly accountKey: Uint8Array;
  readonly devices: readonly { readonly id: string; readonly identityKey: Uint8Array }[];
  readonly revokedCount: number;
  readonly isClosed: boolean;
}

type Field = { readonly number: number } & (
  | { readonly bytes: Uint8Array; readonly value?: undefined }
  | { readonly value: number; readonly bytes?: undefined }
);

const text = new TextDecoder('utf-8', { fatal: true });

/** Fields of a message with varints and length-delimited values; undefined for anything else. */
function fieldsOf(message: Uint8Array): Field[] | undefined {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = message[at++];
      if (byte === undefined || factor > 2 ** 49) return Number.NaN;
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  const fields: Field[] = [];
  while (at < message.length) {
    const tag = varint();
    const value = varint();
    if (Number.isNaN(tag + value)) return undefined;
    const number = Math.floor(tag / 8);
    if (tag % 8 === 0) fields.push({ number, value });
    else if (tag % 8 === 2 && at + value <= message.length) {
      fields.push({ number, bytes: message.subarray(at, at + value) });
      at += value;
    } else return undefined;
  }
  return fields;
}

/** Undefined for a value that is no SignedManifest. */
export function viewManifest(value: Uint8Array): ManifestView | undefined {
  const signed = fieldsOf(value);
  const bytesOf = (fields: readonly Field[] | undefined, number: number): Uint8Array =>
    fields?.findLast((field) => field.number === number)?.bytes ?? new Uint8Array();
  const manifest = bytesOf(signed, 1);
  const fields = fieldsOf(manifest);
  if (signed === undefined || fields === undefined || manifest.length === 0) return undefined;
  const numberOf = (number: number): number =>
    fields.findLast((field) => field.number === number)?.value ?? 0;
  const devices = fields.flatMap((field) => {
    const device = field.number === 5 && field.bytes ? fieldsOf(field.bytes) : undefined;
    return device === undefined
      ? []
      : [{ id: bytesOf(device, 1), identityKey: bytesOf(device, 2) }];
  });
  try {
    return {
      manifest,
      signature: bytesOf(signed, 2),
      userId: text.decode(bytesOf(fields, 1)),
      seq: numberOf(2),
      accountKey: bytesOf(fields, 4),
      devices: devices.map(({ id, identityKey }) => ({ id: text.decode(id), identityKey })),
      revokedCount: fields.filter((field) => field.number === 6).length,
      isClosed: numberOf(9) === 1,
    };
  } catch {
    // Text that is no UTF-8: as little a manifest as any other noise.
    return undefined;
  }
}
