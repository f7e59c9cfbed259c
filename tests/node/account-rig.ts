/**
 * People with several devices, below the level of the client library: cheap OPAQUE exchanges, raw
 * calls, and the account key in reach, so that a test can sign any next manifest.
 */
import assert from 'node:assert/strict';
import * as opaque from '@serenity-kit/opaque';
import {
  call,
  deviceIdOf,
  firstManifest,
  methods,
  nextManifest,
  opaqueIdentifiers,
  sessionMac,
  signDeviceProof,
  signingKeyFromSeed,
  systemClock,
  systemRandom,
  type LoginBinding,
  type ManifestSigners,
  type Method,
  type SigningKey,
} from '@quicprochat/proto';
import {
  fromBinary,
  ManifestSchema,
  type Manifest,
  type MessageInitShape,
  type MessageShape,
  type OpaqueLoginFinishResponse,
  type SignedManifest,
} from '@quicprochat/proto/messages';
import {
  CloseCode,
  makeIdentity,
  type Connection,
  type NodeIdentity,
} from '@quicprochat/proto/transport';
import { LogView } from './log-view.ts';

/** The node cannot tell how a password was stretched; a test need not spend 64 MiB on it. */
const keyStretching = {
  'argon2id-custom': { iterations: 1, memory: 8, parallelism: 1 },
} as const;
const password = 'correct horse battery';

export type Dial = (identity: NodeIdentity) => Promise<Connection>;
type DescMessage = Method['request'];

/** One device: a transport key, an identity key, one connection. */
export class PersonDevice implements AsyncDisposable {
  readonly person: Person;
  readonly identityKey: SigningKey = signingKeyFromSeed(systemRandom.bytes(32));
  readonly transport: NodeIdentity;
  readonly connection: Connection;

  constructor(person: Person, transport: NodeIdentity, connection: Connection) {
    this.person = person;
    this.transport = transport;
    this.connection = connection;
  }

  get rid(): Uint8Array {
    return this.identityKey.publicKey;
  }

  call<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    return call(this.connection, method, request);
  }

  /** Version 0 of the person's manifest, with this device. */
  firstManifest(): SignedManifest {
    return firstManifest(this.person.userId, this.person.accountKey, this.rid, systemClock.now());
  }

  /** Registers the person with this device; the manifest may be another one for a test. */
  async register(manifest?: SignedManifest): Promise<void> {
    const { userId } = this.person;
    const { clientRegistrationState, registrationRequest } = opaque.client.startRegistration({
      password,
    });
    const started = await this.call(methods.opaqueRegisterStart, {
      userId,
      registrationRequest: bytes(registrationRequest),
    });
    const { registrationRecord } = opaque.client.finishRegistration({
      password,
      registrationResponse: text(started.registrationResponse),
      clientRegistrationState,
      identifiers: identifiersOf(userId),
      keyStretching,
    });
    const record = bytes(registrationRecord);
    const transcript = [bytes(registrationRequest), started.registrationResponse, record];
    const signed = manifest ?? this.firstManifest();
    await this.call(methods.opaqueRegisterFinish, {
      handle: started.handle,
      registrationRecord: record,
      manifest: signed,
      deviceProof: signDeviceProof(this.#binding(transcript), this.identityKey),
    });
    this.person.manifest = signed;
  }

  async login(): Promise<OpaqueLoginFinishResponse> {
    const { userId } = this.person;
    const { clientLoginState, startLoginRequest } = opaque.client.startLogin({ password });
    const ke1 = bytes(startLoginRequest);
    const started = await this.call(methods.opaqueLoginStart, { userId, ke1 });
    const finished = opaque.client.finishLogin({
      password,
      loginResponse: text(started.ke2),
      clientLoginState,
      identifiers: identifiersOf(userId),
      keyStretching,
    });
    assert.ok(finished !== undefined, 'the password is right');
    const ke3 = bytes(finished.finishLoginRequest);
    const binding = this.#binding([ke1, started.ke2, ke3]);
    return this.call(methods.opaqueLoginFinish, {
      handle: started.handle,
      ke3,
      identityPub: this.rid,
      deviceProof: signDeviceProof(binding, this.identityKey),
      sessionMac: sessionMac(binding, bytes(finished.sessionKey)),
    });
  }

  #binding(transcript: readonly Uint8Array[]): LoginBinding {
    return {
      transcript,
      clientSpki: this.transport.spkiSha256,
      nodeSpki: this.connection.peer.spkiSha256,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.connection.close(CloseCode.Normal, 'done');
  }
}

/** An account: its key, and the manifest that the node should hold. */
export class Person implements AsyncDisposable {
  readonly userId: string;
  accountKey: SigningKey = signingKeyFromSeed(systemRandom.bytes(32));
  readonly #dial: Dial;
  readonly #devices: PersonDevice[] = [];
  #manifest: SignedManifest | undefined;

  constructor(userId: string, dial: Dial) {
    this.userId = userId;
    this.#dial = dial;
  }

  static async register(userId: string, dial: Dial): Promise<[Person, PersonDevice]> {
    const person = new Person(userId, dial);
    const device = await person.newDevice();
    await device.register();
    return [person, device];
  }

  get label(): Uint8Array {
    return new TextEncoder().encode(this.userId);
  }

  get manifest(): SignedManifest {
    assert.ok(this.#manifest !== undefined, `${this.userId} is not registered`);
    return this.#manifest;
  }
  set manifest(signed: SignedManifest) {
    this.#manifest = signed;
  }

  get content(): Manifest {
    return fromBinary(ManifestSchema, this.manifest.manifest);
  }

  /** A device with fresh keys and a connection, in no manifest. */
  async newDevice(): Promise<PersonDevice> {
    const transport = await makeIdentity(systemRandom);
    const device = new PersonDevice(this, transport, await this.#dial(transport));
    this.#devices.push(device);
    return device;
  }

  /** The next manifest, which the node has not seen. */
  next(
    changes: Parameters<typeof nextManifest>[1],
    signers: Partial<ManifestSigners> = {},
  ): SignedManifest {
    return nextManifest(this.manifest, changes, { accountKey: this.accountKey, ...signers });
  }

  withDevice(device: PersonDevice): SignedManifest {
    return this.next({ devices: [...this.content.devices, entryOf(device.rid)] });
  }

  withoutDevice(device: PersonDevice): SignedManifest {
    const { devices, revoked } = this.content;
    const identityPub = device.rid;
    return this.next({
      devices: devices.filter((one) => Buffer.compare(one.identityPub, identityPub) !== 0),
      revoked: [...revoked, { identityPub, atMs: 1n, reason: 'lost' }],
    });
  }

  closed(): SignedManifest {
    const { devices, revoked } = this.content;
    const gone = devices.map(({ identityPub }) => ({ identityPub, atMs: 1n, reason: 'closed' }));
    return this.next({ devices: [], revoked: [...revoked, ...gone], closed: true });
  }

  /** A further device, logged in and registered. */
  async addDevice(): Promise<PersonDevice> {
    const device = await this.newDevice();
    assert.equal((await device.login()).isEnrolling, true);
    const manifest = this.withDevice(device);
    await device.call(methods.registerDevice, { manifest });
    this.manifest = manifest;
    return device;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#devices.map((device) => device[Symbol.asyncDispose]()));
  }
}

/**
 * Every call that writes into the key log, each as it would be granted: of a person with two devices, of which
 * `first` calls, of a third one, and of somebody new.
 */
export async function writesOf(
  person: Person,
  first: Connection,
  dial: Dial,
): Promise<readonly (() => Promise<unknown>)[]> {
  const view = await LogView.of(first);
  const { devices, seq } = person.content;
  const lost = devices.slice(1);
  const revoked = lost.map(({ identityPub }) => ({ identityPub, atMs: 1n, reason: 'lost' }));
  const less = person.next({ devices: devices.slice(0, 1), revoked });
  const request = view.update(person.label, Number(seq), person.next({}));
  const third = await person.newDevice();
  await third.login();
  const domain = person.userId.slice(person.userId.indexOf('@'));
  return [
    () => call(first, methods.revokeDevice, { manifest: less }),
    () => call(first, methods.revokeKey, { manifest: less }),
    () => call(first, methods.deleteAccount, { manifest: person.closed() }),
    () => call(first, methods.ktUpdate, { request }),
    () => third.call(methods.registerDevice, { manifest: person.withDevice(third) }),
    () => Person.register(`somebody.new${domain}`, dial),
  ];
}

/** A device as a manifest lists it. */
export function entryOf(identityPub: Uint8Array): {
  deviceId: string;
  identityPub: Uint8Array;
  addedMs: bigint;
} {
  return { deviceId: deviceIdOf(identityPub), identityPub, addedMs: BigInt(systemClock.now()) };
}

function identifiersOf(userId: string): ReturnType<typeof opaqueIdentifiers> {
  return opaqueIdentifiers(userId, userId.slice(userId.indexOf('@') + 1));
}

const bytes = (value: string): Uint8Array => Uint8Array.from(Buffer.from(value, 'base64url'));
const text = (value: Uint8Array): string => Buffer.from(value).toString('base64url');
